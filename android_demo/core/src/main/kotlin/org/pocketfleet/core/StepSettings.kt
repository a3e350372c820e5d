package org.pocketfleet.core

/** Which terms a training step was traced with; one that is off is no input of it. */
data class StepSettings(
    val optimizer: String = SGD,
    val momentum: Boolean = false,
    val nesterov: Boolean = false,
    val weightDecay: Boolean = false,
    val proximal: Boolean = false,
    val clipping: Boolean = false,
    val correction: Boolean = false,
) {
    init {
        if (optimizer !in OPTIMIZERS) throw FormatException("optimizer must be one of $OPTIMIZERS, got $optimizer")
        if (optimizer != SGD && momentum || nesterov && !momentum) {
            throw FormatException("momentum is of $SGD alone, nesterov of momentum alone, got $this")
        }
    }

    /** Whether the optimizer keeps moments of the gradient. */
    val adaptive: Boolean get() = optimizer != SGD

    /** The hyper-parameters that a step takes, in order. */
    val hyperNames: List<String>
        get() = listOf(
            "learning_rate" to true,
            "momentum" to momentum,
            "beta1" to adaptive,
            "beta2" to adaptive,
            "epsilon" to adaptive,
            "weight_decay" to weightDecay,
            "proximal_mu" to proximal,
            "max_norm" to clipping,
        ).filter { (_, present) -> present }.map { (name, _) -> name }

    companion object {
        private const val SGD = "sgd"
        private val OPTIMIZERS = setOf(SGD, "adam", "adamw")

        /** @throws FormatException these are no settings of a step. */
        fun of(json: CheckedJson): StepSettings = StepSettings(
            optimizer = json.text("optimizer"),
            momentum = json.flag("momentum"),
            nesterov = json.flag("nesterov"),
            weightDecay = json.flag("weight_decay"),
            proximal = json.flag("proximal"),
            clipping = json.flag("clipping"),
            correction = json.flag("correction"),
        )
    }
}
