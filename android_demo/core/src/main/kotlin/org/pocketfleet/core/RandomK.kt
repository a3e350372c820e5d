package org.pocketfleet.core

import kotlin.math.ceil

/** How many of [length] values are kept: `ratio * length` in float64, rounded up. */
internal fun keptCount(length: Int, ratio: Double): Int = minOf(length, ceil(ratio * length).toInt())

/** A vector of [length] values: [values] at [places], 0 elsewhere. */
internal fun spread(values: FloatArray, places: IntArray, length: Int): FloatArray {
    val vector = FloatArray(length)
    for (at in places.indices) vector[places[at]] = values[at]
    return vector
}

/**
 * The values of a few places, the same ones for all devices of a version, so that no places travel.
 *
 * 1. Kept are the places of the smallest of the first numbers of the seed's key `random_k`, of equal numbers the first,
 *    in rising order; `ratio * d` of them, rounded up.
 * 2. [unbiased]: what arrives is multiplied by `d / k`, rounded to float32. With error feedback it is not.
 *
 * Source: Konecny et al. 2016, arXiv:1610.05492, section 3.2.
 */
internal class RandomK(private val ratio: Double, private val unbiased: Boolean) : Stage {
    override fun madeLength(length: Int): Int = keptCount(length, ratio)

    override fun sideBytes(length: Int): Int = 0

    override fun apply(vector: FloatArray, seed: Long): Staged {
        val places = places(vector.size, seed)
        return Staged(FloatArray(places.size) { vector[places[it]] })
    }

    override fun undo(vector: FloatArray, side: ByteArray, seed: Long, length: Int): FloatArray {
        val factor = if (unbiased && vector.isNotEmpty()) (length.toDouble() / vector.size).toFloat() else 1f
        return spread(FloatArray(vector.size) { vector[it] * factor }, places(length, seed), length)
    }

    /** Rule 1. */
    private fun places(length: Int, seed: Long): IntArray {
        val order = Draws.permutation(Draws.key(seed, "random_k"), length)
        return order.copyOf(madeLength(length)).apply { sort() }
    }
}
