package org.pocketfleet.core

/**
 * Every random draw of a round: SplitMix64 over (seed, purpose, indices), the same numbers as the service's.
 *
 * A key is a 64-bit number; its `i`-th number is `mix(key + (i + 1) * GOLDEN)`, modulo 2^64. A [Long] holds the 64 bits
 * as they are, so that a number of 2^63 and above is negative here.
 *
 * Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators" (OOPSLA); constants of Vigna's
 * public-domain splitmix64.c (prng.di.unimi.it).
 */
object Draws {
    // 2^64 divided by the golden ratio, made odd.
    private const val GOLDEN = -0x61c8864680b583ebL
    private const val FIRST_FACTOR = -0x40a7b892e31b1a47L
    private const val SECOND_FACTOR = -0x6b2fb644ecceee15L

    // FNV-1a, 64 bit (RFC 9923), turns a purpose into a number.
    private const val FNV_OFFSET = -0x340d631b7bdddcdbL
    private const val FNV_PRIME = 0x100000001b3L

    // A double holds 53 bits exactly, a float 24.
    private const val DOUBLE_BITS = 53
    private const val FLOAT_BITS = 24

    /** Scramble 64 bits, one to one. */
    fun mix(value: Long): Long {
        var z = value
        z = (z xor (z ushr 30)) * FIRST_FACTOR
        z = (z xor (z ushr 27)) * SECOND_FACTOR
        return z xor (z ushr 31)
    }

    /** Fold a seed, a word that says what the draw is for, and indices of 0 or more into a key. */
    fun key(seed: Long, purpose: String, vararg indices: Long): Long {
        var key = mix(seed + fnv1a64(purpose))
        // Mixing in between keeps (a, b) and (b, a) apart.
        for (index in indices) key = mix(key + (index + 1) * GOLDEN)
        return key
    }

    /** The first [count] numbers of a key. */
    fun numbers(key: Long, count: Int): LongArray = LongArray(count) { number(key, it) }

    /** Numbers in [0, 1) with 53 random bits. */
    fun uniform(key: Long, count: Int): DoubleArray =
        DoubleArray(count) { Math.scalb(highest(DOUBLE_BITS, number(key, it)).toDouble(), -DOUBLE_BITS) }

    /** The order of 0 to [count] - 1 that a key draws. */
    fun permutation(key: Long, count: Int): IntArray = stableOrder(numbers(key, count))

    /** What a training step's masks are made of at [site], row-major; [seed] is the step's ([Batches.dropoutSeed]). */
    fun dropoutNumbers(seed: Long, site: Int, count: Int): FloatArray {
        val key = key(seed, "dropout_site", site.toLong())
        return FloatArray(count) { Math.scalb(highest(FLOAT_BITS, number(key, it)).toFloat(), -FLOAT_BITS) }
    }

    /** The places of numbers without sign from the smallest to the largest; of equal ones the first comes first. */
    internal fun stableOrder(numbers: LongArray): IntArray {
        // Flipping the highest bit turns the order without sign into the one with sign.
        val sorted = LongArray(numbers.size) { numbers[it] xor Long.MIN_VALUE }.apply { sort() }
        val order = IntArray(numbers.size) { -1 }
        for (place in numbers.indices) {
            var rank = firstRank(sorted, numbers[place] xor Long.MIN_VALUE)
            while (order[rank] >= 0) rank += 1
            order[rank] = place
        }
        return order
    }

    private fun firstRank(sorted: LongArray, number: Long): Int {
        var (low, high) = 0 to sorted.size
        while (low < high) {
            val middle = (low + high) ushr 1
            if (sorted[middle] < number) low = middle + 1 else high = middle
        }
        return low
    }

    /** Number [index] of a key, counted from 0. */
    fun number(key: Long, index: Int): Long = mix(key + (index + 1L) * GOLDEN)

    private fun highest(bits: Int, number: Long): Long = number ushr (Long.SIZE_BITS - bits)

    private fun fnv1a64(text: String): Long =
        text.toByteArray(Charsets.UTF_8).fold(FNV_OFFSET) { number, byte ->
            (number xor (byte.toLong() and 0xff)) * FNV_PRIME
        }
}
