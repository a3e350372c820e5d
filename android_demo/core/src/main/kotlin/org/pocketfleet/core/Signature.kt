package org.pocketfleet.core

/** What an input or output of a program is for; [word] is the manifest's. */
enum class Role {
    TRAINABLE,
    BUFFER,
    SLOT,
    FROZEN,
    ANCHOR,
    CORRECTION,
    X,
    Y,
    HYPER,
    UNIFORM,
    LOSS,
    OUTPUT,
    METRIC,
    ;

    val word: String = name.lowercase(java.util.Locale.ROOT)
}

/** One input or output; a size of [BATCH] in [shape] is the batch's. */
data class TensorSpec(val role: Role, val name: String, val shape: List<Long>, val type: ElementType) {
    /** The shape at one batch size. */
    fun sizes(batch: Long): LongArray = LongArray(shape.size) { if (shape[it] == BATCH) batch else shape[it] }

    /** Of a tensor that is no batch's. */
    fun kind(): TensorKind = TensorKind(type, shape)

    /** As messages name it. */
    override fun toString(): String {
        val sizes = shape.joinToString { if (it == BATCH) BATCH_WORD else it.toString() }
        return "${role.word}/$name ${type.manifestName} [$sizes]"
    }

    companion object {
        const val BATCH = -1L
        private const val BATCH_WORD = "batch"

        // ExecuTorch's own limits.
        private const val MOST_DIMENSIONS = 16
        private val SIZES = 0..Int.MAX_VALUE.toLong()

        /** @throws FormatException it describes no tensor that phones compute with. */
        fun of(json: CheckedJson): TensorSpec {
            val role = Role.entries.find { it.word == json.text("role") } ?: json.wrong("role", "a known role")
            val type = ElementType.ofManifest(json.text("dtype"))
                ?: json.wrong("dtype", "one of ${ElementType.entries.joinToString { it.manifestName }}")
            val shape = json.items("shape").map {
                if (it == BATCH_WORD) BATCH else CheckedJson.wholeOf(it, SIZES) ?: json.wrong("shape", "sizes or batch")
            }
            if (shape.size > MOST_DIMENSIONS) json.wrong("shape", "of $MOST_DIMENSIONS dimensions at most")
            return TensorSpec(role, json.text("name"), shape, type)
        }
    }
}

/** Inputs and outputs of one method, in the order in which it takes and returns them. */
class MethodSignature(val inputs: List<TensorSpec>, val outputs: List<TensorSpec>) {
    fun inputs(role: Role): List<TensorSpec> = inputs.filter { it.role == role }

    fun outputs(role: Role): List<TensorSpec> = outputs.filter { it.role == role }

    companion object {
        fun of(json: CheckedJson): MethodSignature =
            MethodSignature(json.parts("inputs").map(TensorSpec::of), json.parts("outputs").map(TensorSpec::of))
    }
}

/** The signatures of the three methods; [SignatureRules] says which there can be. */
class Signature(val trainStep: MethodSignature, val predict: MethodSignature, val evaluate: MethodSignature) {
    companion object {
        fun of(json: CheckedJson): Signature = Signature(
            trainStep = MethodSignature.of(json.part("train_step")),
            predict = MethodSignature.of(json.part("predict")),
            evaluate = MethodSignature.of(json.part("evaluate")),
        )
    }
}
