package org.pocketfleet.core

/** What an input or output of a program is for; [word] is the manifest's. */
enum class Role {
    TRAINABLE, BUFFER, SLOT, FROZEN, ANCHOR, CORRECTION, X, Y, HYPER, UNIFORM, LOSS, OUTPUT, METRIC;

    val word: String = name.lowercase(java.util.Locale.ROOT)
}

/** One input or output; a size of [BATCH] in [shape] is the batch's. */
data class TensorSpec(val role: Role, val name: String, val shape: List<Long>, val type: ElementType) {
    /** The shape at one batch size. */
    fun sizes(batch: Long): LongArray = LongArray(shape.size) { if (shape[it] == BATCH) batch else shape[it] }

    companion object {
        const val BATCH = -1L
    }
}

/** Inputs and outputs of one method, in the order in which it takes and returns them. */
class MethodSignature(val inputs: List<TensorSpec>, val outputs: List<TensorSpec>) {
    fun inputs(role: Role): List<TensorSpec> = inputs.filter { it.role == role }

    fun outputs(role: Role): List<TensorSpec> = outputs.filter { it.role == role }
}

/** The signatures of the three methods. */
class Signature(val trainStep: MethodSignature, val predict: MethodSignature, val evaluate: MethodSignature)
