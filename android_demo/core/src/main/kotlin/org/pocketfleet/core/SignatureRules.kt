package org.pocketfleet.core

/**
 * Which signatures a bundle can have: whoever runs one counts inputs and outputs by their order.
 *
 * A training step takes trainable weights, buffers, slots, frozen weights, anchor, correction, x, y, hyper-parameters
 * and uniform numbers, each as its settings ask; it returns the loss, then the first three as they are after it. The
 * two other methods take the weights and the batch. Names are in order, but for hyper-parameters and uniform numbers.
 */
internal class SignatureRules(private val signature: Signature, private val settings: StepSettings) {
    private val step = signature.trainStep

    /** @throws FormatException names the first input or output that cannot be. */
    fun check() {
        for (role in WEIGHTS) checkOrder(role)
        val trainable = step.inputs(Role.TRAINABLE)
        if (trainable.isEmpty()) throw FormatException("signature.train_step.inputs: nothing is trainable")
        val weights = WEIGHTS.flatMap(step::inputs)
        val batch = listOf(batch(Role.X), batch(Role.Y))
        val slots = slots(trainable).sortedWith(compareBy(NameOrder) { it.name })
        val changed = trainable + step.inputs(Role.BUFFER) + slots
        val inputs = changed + step.inputs(Role.FROZEN) + like(trainable, Role.ANCHOR, settings.proximal) +
            like(trainable, Role.CORRECTION, settings.correction) + batch + hyper() + uniform()
        checkSame("train_step.inputs", step.inputs, inputs)
        checkSame("train_step.outputs", step.outputs, step.outputs(Role.LOSS).take(1) + changed)
        checkSame("predict.inputs", signature.predict.inputs, weights + batch[0])
        checkSame("evaluate.inputs", signature.evaluate.inputs, weights + batch)
        checkOutputs("train_step", step.outputs.take(1), Role.LOSS)
        checkOutputs("predict", signature.predict.outputs, Role.OUTPUT)
        checkOutputs("evaluate", signature.evaluate.outputs.take(1), Role.LOSS)
        checkMetrics(signature.evaluate.outputs.drop(1))
    }

    private fun checkOrder(role: Role) {
        val specs = step.inputs(role)
        if (specs.any { TensorSpec.BATCH in it.shape }) {
            throw FormatException("signature.train_step.inputs: no weight is as large as a batch, ${role.word} has one")
        }
        if (specs.zipWithNext().any { (one, next) -> NameOrder.compare(one.name, next.name) >= 0 }) {
            throw FormatException("signature.train_step.inputs: names of ${role.word} must be in order, each once")
        }
    }

    private fun slots(trainable: List<TensorSpec>): List<TensorSpec> {
        fun of(slot: String) = trainable.map { it.copy(role = Role.SLOT, name = "$slot/${it.name}") }
        fun power(name: String) = TensorSpec(Role.SLOT, name, emptyList(), ElementType.FLOAT32)
        return when {
            settings.adaptive ->
                of("first_moment") + of("second_moment") + power("beta1_power") + power("beta2_power")
            settings.momentum -> of("momentum")
            else -> emptyList()
        }
    }

    private fun like(trainable: List<TensorSpec>, role: Role, wanted: Boolean) =
        if (wanted) trainable.map { it.copy(role = role) } else emptyList()

    private fun batch(role: Role): TensorSpec = step.inputs(role).singleOrNull()
        ?.takeIf { it.name == role.word && it.shape.indexOf(TensorSpec.BATCH) == 0 && onlyFirst(it) }
        ?: throw FormatException(
            "signature.train_step.inputs: there must be one batch ${role.word}, got ${step.inputs(role)}",
        )

    private fun onlyFirst(spec: TensorSpec) = spec.shape.lastIndexOf(TensorSpec.BATCH) <= 0

    private fun hyper() = settings.hyperNames.map { TensorSpec(Role.HYPER, it, emptyList(), ElementType.FLOAT32) }

    private fun uniform() = step.inputs(Role.UNIFORM).mapIndexed { site, spec ->
        if (!onlyFirst(spec)) throw FormatException("signature.train_step.inputs: the batch must come first in $spec")
        spec.copy(name = site.toString(), type = ElementType.FLOAT32)
    }

    private fun checkSame(place: String, found: List<TensorSpec>, wanted: List<TensorSpec>) {
        for (index in 0 until maxOf(found.size, wanted.size)) {
            val (came, must) = found.getOrNull(index) to wanted.getOrNull(index)
            if (came != must) {
                throw FormatException("signature.$place.$index must be ${must ?: "nothing"}, got ${came ?: "nothing"}")
            }
        }
    }

    private fun checkOutputs(method: String, outputs: List<TensorSpec>, role: Role) {
        val output = outputs.singleOrNull()
        val scalar = role == Role.OUTPUT || output?.shape?.isEmpty() == true
        if (output == null || output.role != role || output.name != role.word || !scalar) {
            throw FormatException("signature.$method.outputs must hold one ${role.word}, first, got $outputs")
        }
    }

    private fun checkMetrics(metrics: List<TensorSpec>) {
        val sound = metrics.filter { it.role == Role.METRIC && it.shape.isEmpty() && it.name != Role.LOSS.word }
        if (sound.distinctBy { it.name }.size != metrics.size) {
            throw FormatException("signature.evaluate.outputs: behind the loss there must be metrics only, each once")
        }
    }

    private companion object {
        val WEIGHTS = listOf(Role.TRAINABLE, Role.BUFFER, Role.FROZEN)
    }
}
