package org.pocketfleet.core

import kotlin.math.abs
import kotlin.math.pow

/** Where the blocks of a vector of [total] values begin and end: 1,024 values each, the last of a piece what is left. */
internal class Blocks(pieces: List<Int>) {
    val total: Int = pieces.fold(0, Math::addExact)

    /** In their order; none is empty. */
    val ranges: List<IntRange> = buildList {
        var start = 0
        for (piece in pieces) {
            for (first in start until start + piece step LENGTH) add(first until minOf(first + LENGTH, start + piece))
            start += piece
        }
    }

    private companion object {
        const val LENGTH = 1024
    }
}

/** A code a value, and a step a block. */
internal class Quantised(val codes: ByteArray, val steps: FloatArray)

/**
 * Uniform quantisation to 8, 4 or 2 [bits] a value: whole steps up or down, and a step a block.
 *
 * 1. Levels are `-L .. L`, `L = 2^(bits - 1) - 1`. A block's step is its largest absolute value divided by `L`; 0 where
 *    that value is under `2^-100`.
 * 2. Value `x` is `y = x / step` (`x` where the step is 0), its code `floor(y + (L + u))`, taken into `0 .. 2 L`; it
 *    arrives as `(code - L) * step`.
 * 3. `u` is 0.5 without dice; else `(dice + 0.5) / 65,536`, where the dice of values `4 j` to `4 j + 3` are the 16 bits
 *    each, from the lowest, of number `j` of the key `codec_dice` of the device's own seed.
 * 4. All arithmetic is float32, each operation rounded, in the order written.
 *
 * Source: QSGD, Alistarh et al. 2017, arXiv:1610.02132, section 3.1.
 */
internal class Quantisation(bits: Int) {
    private val most = (1 shl bits - 1) - 1

    /** The largest code. */
    val largestCode: Int = 2 * most

    /** Rules 1 to 3; [diceSeed] null: to the nearest level. Of values that are not finite a step is not either. */
    fun quantised(vector: FloatArray, blocks: Blocks, diceSeed: Long?): Quantised {
        val codes = ByteArray(vector.size)
        val steps = FloatArray(blocks.ranges.size)
        val dice = diceSeed?.let { Draws.key(it, "codec_dice") }
        for ((number, block) in blocks.ranges.withIndex()) {
            val step = step(vector, block)
            steps[number] = step
            val divisor = if (step > 0f) step else 1f
            for (place in block) {
                val level = vector[place] / divisor + (if (dice == null) most + NEAREST else thrown(dice, place))
                codes[place] = level.coerceIn(0f, largestCode.toFloat()).toInt().toByte()
            }
        }
        return Quantised(codes, steps)
    }

    /** Rule 2. */
    fun dequantised(found: Quantised, blocks: Blocks): FloatArray {
        val vector = FloatArray(found.codes.size)
        for ((number, block) in blocks.ranges.withIndex()) {
            for (place in block) {
                val level = (found.codes[place].toInt() and 0xff).toFloat() - most.toFloat()
                vector[place] = level * found.steps[number]
            }
        }
        return vector
    }

    private fun step(vector: FloatArray, block: IntRange): Float {
        var largest = 0f
        for (place in block) largest = maxOf(largest, abs(vector[place]))
        return if (largest < SMALLEST) 0f else largest / most.toFloat()
    }

    /** Rule 3: `L + u`, exactly. */
    private fun thrown(key: Long, place: Int): Float {
        val dice = (Draws.number(key, place / DICE) ushr place % DICE * DICE_BITS and DICE_MASK).toFloat()
        return (dice + (most * (DICE_MASK + 1) + NEAREST)) * DICE_UNIT
    }

    companion object {
        /** Bits that a value can have. */
        val BITS = setOf<Any>(8, 4, 2)

        private const val NEAREST = 0.5f
        private val SMALLEST = 2f.pow(-100)

        // Of 64 bits.
        private const val DICE = 4
        private const val DICE_BITS = 16
        private const val DICE_MASK = 0xffffL
        private const val DICE_UNIT = 1f / 65_536f
    }
}
