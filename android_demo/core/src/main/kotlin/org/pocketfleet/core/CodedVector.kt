package org.pocketfleet.core

/**
 * How a flat vector's values are written: as `codes`, packed, and `steps`, or with 0 [bits] as `values`.
 *
 * @param blocks of as many values.
 * @param prefix of the tensors' names.
 */
internal class CodedVector(private val blocks: Blocks, private val bits: Int, private val prefix: String) {
    /** Names, types and shapes of the tensors. */
    fun kinds(): Map<String, TensorKind> =
        if (bits == 0) {
            mapOf("${prefix}values" to flat(ElementType.FLOAT32, blocks.total))
        } else {
            mapOf(
                "${prefix}codes" to flat(ElementType.UINT8, Packing(bits).bytes(blocks.total)),
                "${prefix}steps" to flat(ElementType.FLOAT32, blocks.ranges.size),
            )
        }

    /** The tensors of [vector]; [diceSeed] null: its values are rounded to the nearest level. */
    fun encoded(vector: FloatArray, diceSeed: Long?): Tensors {
        if (bits == 0) return mapOf("${prefix}values" to HostTensor.of(vector, vector.size.toLong()))
        val found = Quantisation(bits).quantised(vector, blocks, diceSeed)
        return mapOf(
            "${prefix}codes" to HostTensor.of(Packing(bits).packed(found.codes)),
            "${prefix}steps" to HostTensor.of(found.steps, found.steps.size.toLong()),
        )
    }

    /**
     * The vector in [tensors], which are of these [kinds].
     *
     * @throws FormatException a code is none, or a step is no length.
     */
    fun decoded(tensors: Tensors): FloatArray {
        if (bits == 0) return tensors.getValue("${prefix}values").floats()
        val quantisation = Quantisation(bits)
        val codes = Packing(bits).unpacked(tensors.getValue("${prefix}codes").bytes(), blocks.total)
        val steps = tensors.getValue("${prefix}steps").floats()
        val largest = quantisation.largestCode
        codes.find { it.toInt() and 0xff > largest }?.let {
            throw FormatException("codes of $bits bits must be 0 to $largest, got ${it.toInt() and 0xff}")
        }
        steps.find { !it.isFinite() || it < 0f }?.let {
            throw FormatException("steps of quantisation must be finite and 0 or more, got $it")
        }
        return quantisation.dequantised(Quantised(codes, steps), blocks)
    }

    private fun flat(type: ElementType, count: Int) = TensorKind(type, listOf(count.toLong()))
}
