package org.pocketfleet.core

/**
 * The weights of a version of [bits] 8, 4 or 2 each: `weights/codes` and `weights/steps` of the trainable ones as one
 * flat vector, a piece a tensor; buffers beside them under their own names, every bit kept.
 *
 * @param step the signature whose weights they are.
 */
internal class DownloadCodec(step: MethodSignature, bits: Int) {
    private val trainable = step.inputs(Role.TRAINABLE).associate { it.name to it.kind() }
    private val buffers = step.inputs(Role.BUFFER).associate { it.name to it.kind() }
    private val flat = FlatVector(trainable)
    private val coded = CodedVector(Blocks(flat.pieces), bits, "weights/")
    private val kinds = coded.kinds() + buffers

    /** Exactly so long is a version. */
    val bytes: Long = SafeTensors.size(kinds)

    /**
     * Weights and buffers by name.
     *
     * @throws FormatException these are no version's.
     */
    fun decoded(tensors: Tensors): Tensors {
        trainable.entries.find { it.value.type != ElementType.FLOAT32 }?.let { (name, kind) ->
            throw FormatException("weight '$name' is ${kind.type.manifestName}, and only float32 is rounded")
        }
        checkKinds(tensors, kinds)
        return flat.tensors(coded.decoded(tensors)) + tensors.filterKeys { it in buffers }
    }
}
