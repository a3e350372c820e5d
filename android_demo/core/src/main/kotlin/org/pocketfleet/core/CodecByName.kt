package org.pocketfleet.core

/**
 * Codecs by name: `lossless`, or parts in the order of their work, such as `rotation+random_k+quantised`.
 *
 * 1. Each part comes once, `quantised` last, and something in the chain saves bytes.
 * 2. `top_k` and `random_k` exclude each other.
 * 3. `bits` (8, 4 or 2) is given where something is quantised, `ratio` (above 0, at most 1) where a few values are kept,
 *    `error_feedback` where anything is lost; 0 and false are as not given.
 */
internal object CodecByName {
    private const val LOSSLESS = "lossless"
    private const val QUANTISED = "quantised"
    private const val ROTATION = "rotation"
    private const val RANDOM_K = "random_k"
    private const val TOP_K = "top_k"
    private const val ERROR_FEEDBACK = "error_feedback"
    private const val QUANTISED_DOWNLOAD = "quantised_download"
    private const val BITS = "bits"
    private const val RATIO = "ratio"
    private val CHAINED = listOf(QUANTISED, RANDOM_K, ROTATION, TOP_K)
    private val KEEPS_FEW = setOf(RANDOM_K, TOP_K)

    /** All that this app can do, as it says at check-in. */
    val DEVICE_PARTS = listOf(LOSSLESS) + CHAINED + ERROR_FEEDBACK + QUANTISED_DOWNLOAD

    /**
     * The codec called [name].
     *
     * @throws GivenUp this app has none such, or its parts or options do not fit together.
     */
    fun of(name: String, options: Map<String, Any>): Codec {
        fun refuse(why: String): Nothing = throw GivenUp("the service asks for the codec $name: $why")
        val given = options.filterValues { it != false && (it as? Number)?.toDouble() != 0.0 }
        val unknown = given.keys - setOf(BITS, RATIO, ERROR_FEEDBACK)
        if (unknown.isNotEmpty()) refuse("options are bits, ratio and error_feedback, got ${unknown.joinToString()}")
        if (name == LOSSLESS) {
            if (given.isNotEmpty()) refuse("it has no options, got ${given.keys.joinToString()}")
            return LosslessCodec
        }
        val parts = name.split('+')
        wrongChain(parts)?.let(::refuse)
        wrongOptions(parts, given)?.let(::refuse)
        val errorFeedback = given[ERROR_FEEDBACK] == true
        val ratio = (given[RATIO] as? Number)?.toDouble() ?: 1.0
        val stages = parts.mapNotNull {
            when (it) {
                ROTATION -> Rotation
                RANDOM_K -> RandomK(ratio, unbiased = !errorFeedback)
                TOP_K -> TopK(ratio)
                else -> null
            }
        }
        return LossyCodec(stages, (given[BITS] as? Int) ?: 0, errorFeedback)
    }

    /** Rules 1 and 2; null: nothing is wrong. */
    private fun wrongChain(parts: List<String>): String? = when {
        !CHAINED.containsAll(parts) -> "this app has $LOSSLESS, or ${CHAINED.joinToString()} joined by +"
        parts.toSet().size < parts.size -> "a part comes twice"
        parts.containsAll(KEEPS_FEW) -> "top_k and random_k exclude each other"
        QUANTISED in parts.dropLast(1) -> "quantised must come last"
        parts.last() == ROTATION -> "it ends in rotation, which saves no bytes"
        else -> null
    }

    /** Rule 3. */
    private fun wrongOptions(parts: List<String>, given: Map<String, Any>): String? {
        for ((option, isWanted) in mapOf(BITS to (QUANTISED in parts), RATIO to parts.any { it in KEEPS_FEW })) {
            if (isWanted && option !in given) return "it needs $option"
            if (!isWanted && option in given) return "$option says nothing there"
        }
        val (bits, ratio, feedback) = listOf(BITS, RATIO, ERROR_FEEDBACK).map(given::get)
        return when {
            bits != null && bits !in Quantisation.BITS -> "bits must be 8, 4 or 2, got $bits"
            ratio != null && !((ratio as? Number)?.toDouble() ?: 0.0).let { it > 0.0 && it <= 1.0 } ->
                "ratio must be above 0 and at most 1, got $ratio"
            feedback != null && feedback !is Boolean -> "error_feedback must be true or false, got $feedback"
            else -> null
        }
    }
}
