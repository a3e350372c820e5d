package org.pocketfleet.core

import kotlin.math.sqrt

/**
 * A seeded random rotation: afterwards no value sticks out, and each holds a little of all.
 *
 * 1. Blocks of 4,096 values as long as there are so many, then of the powers of two of what is left, down to 64; what
 *    is left under 64 is padded with zeros to 64.
 * 2. The sign of value `i`, padding included, is turned where bit `i % 64` of number `i / 64` of the seed's key
 *    `rotation` is 1.
 * 3. In each block of `n`, for `h` = 1, 2, 4, ... `n / 2`, every pair `a` at `j`, `b` at `j + h` (`j` without bit `h`)
 *    becomes `a + b` and `a - b`; then all are multiplied by `1 / sqrt(n)`, rounded to float32.
 * 4. The way back is rule 3, then rule 2.
 *
 * Source: Suresh et al. 2017, arXiv:1611.00429, section 3.
 */
internal object Rotation : Stage {
    private const val BLOCK = 4096
    private const val LEAST = 64

    override fun madeLength(length: Int): Int = Math.multiplyExact((length + LEAST - 1) / LEAST, LEAST)

    override fun sideBytes(length: Int): Int = 0

    override fun apply(vector: FloatArray, seed: Long): Staged {
        val padded = vector.copyOf(madeLength(vector.size))
        turnSigns(padded, seed)
        transform(padded)
        return Staged(padded)
    }

    override fun undo(vector: FloatArray, side: ByteArray, seed: Long, length: Int): FloatArray {
        val back = vector.copyOf()
        transform(back)
        turnSigns(back, seed)
        return back.copyOf(length)
    }

    /** Rule 2, in place. */
    private fun turnSigns(vector: FloatArray, seed: Long) {
        val key = Draws.key(seed, "rotation")
        for (word in 0 until vector.size / LEAST) {
            val bits = Draws.number(key, word)
            for (bit in 0 until LEAST) {
                if (bits ushr bit and 1L == 1L) vector[word * LEAST + bit] = -vector[word * LEAST + bit]
            }
        }
    }

    /** Rule 3, in place. */
    private fun transform(vector: FloatArray) {
        var start = 0
        while (start < vector.size) {
            val size = minOf(BLOCK, Integer.highestOneBit(vector.size - start))
            walshHadamard(vector, start, size)
            start += size
        }
    }

    private fun walshHadamard(vector: FloatArray, start: Int, size: Int) {
        var half = 1
        while (half < size) {
            for (first in start until start + size step 2 * half) {
                for (place in first until first + half) {
                    val one = vector[place]
                    val other = vector[place + half]
                    vector[place] = one + other
                    vector[place + half] = one - other
                }
            }
            half *= 2
        }
        val factor = (1.0 / sqrt(size.toDouble())).toFloat()
        for (place in start until start + size) vector[place] *= factor
    }
}
