package org.pocketfleet.core

/** Codes of [bits] each, 8, 4 or 2, as bytes: the first in the lowest bits of a byte, bits left over are 0. */
internal class Packing(private val bits: Int) {
    private val each = Byte.SIZE_BITS / bits
    private val mask = (1 shl bits) - 1

    /** How many bytes [count] codes take. */
    fun bytes(count: Int): Int = ((count.toLong() * bits + Byte.SIZE_BITS - 1) / Byte.SIZE_BITS).toInt()

    fun packed(codes: ByteArray): ByteArray {
        val packed = ByteArray(bytes(codes.size))
        for (place in codes.indices) {
            val code = codes[place].toInt() and 0xff shl place % each * bits
            packed[place / each] = (packed[place / each].toInt() or code).toByte()
        }
        return packed
    }

    /**
     * The [count] codes of [packed] bytes, of which there are as many as it takes.
     *
     * @throws FormatException bits left over are not 0.
     */
    fun unpacked(packed: ByteArray, count: Int): ByteArray {
        fun code(place: Int) = packed[place / each].toInt() ushr place % each * bits and mask
        for (place in count until packed.size * each) {
            if (code(place) != 0) throw FormatException("the bits after $count codes of $bits bits must be 0")
        }
        return ByteArray(count) { code(it).toByte() }
    }
}
