package org.pocketfleet.core

import kotlin.math.abs

/**
 * The few values that are largest in size, and where they are.
 *
 * 1. Kept are the `ratio * d`, rounded up, largest absolute values, of equal ones the first, in rising order of places.
 * 2. A place is `w` bytes, the lowest first; `w` is the least that holds `d - 1`.
 *
 * Source: Stich et al. 2018, arXiv:1809.07599, definition 2.1.
 */
internal class TopK(private val ratio: Double) : Stage {
    override fun madeLength(length: Int): Int = keptCount(length, ratio)

    override fun sideBytes(length: Int): Int = Math.multiplyExact(madeLength(length), placeBytes(length))

    override fun apply(vector: FloatArray, seed: Long): Staged {
        val places = largest(vector, madeLength(vector.size))
        return Staged(FloatArray(places.size) { vector[places[it]] }, written(places, placeBytes(vector.size)))
    }

    override fun undo(vector: FloatArray, side: ByteArray, seed: Long, length: Int): FloatArray =
        spread(vector, read(side, length), length)

    /** Rule 1; the values are finite. */
    private fun largest(vector: FloatArray, count: Int): IntArray {
        if (count == 0) return IntArray(0)
        val least = FloatArray(vector.size) { abs(vector[it]) }.apply { sort() }[vector.size - count]
        var equal = count - vector.count { abs(it) > least }
        val places = IntArray(count)
        var found = 0
        for (place in vector.indices) {
            val size = abs(vector[place])
            if (size > least || (size == least && equal-- > 0)) places[found++] = place
        }
        return places
    }

    private fun placeBytes(length: Int): Int {
        val bits = Int.SIZE_BITS - Integer.numberOfLeadingZeros((length - 1).coerceAtLeast(0))
        return ((bits + Byte.SIZE_BITS - 1) / Byte.SIZE_BITS).coerceAtLeast(1)
    }

    private fun written(places: IntArray, width: Int) = ByteArray(places.size * width) {
        (places[it / width] ushr (it % width * Byte.SIZE_BITS)).toByte()
    }

    private fun read(side: ByteArray, length: Int): IntArray {
        val width = placeBytes(length)
        val places = IntArray(side.size / width) { place ->
            (0 until width).fold(0) { sum, at ->
                sum or (side[place * width + at].toInt() and 0xff shl at * Byte.SIZE_BITS)
            }
        }
        var before = -1
        for (place in places) {
            if (place <= before || place >= length) {
                throw FormatException("places of kept values must rise and be under $length, got $place after $before")
            }
            before = place
        }
        return places
    }
}
