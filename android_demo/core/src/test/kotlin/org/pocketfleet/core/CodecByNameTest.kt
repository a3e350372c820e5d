package org.pocketfleet.core

import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertSame
import kotlin.test.assertTrue
import org.junit.Test

class CodecByNameTest {
    private fun refused(name: String, options: Map<String, Any>): String =
        assertFailsWith<GivenUp>("$name $options") { CodecByName.of(name, options) }.reason

    @Test
    fun `chains that make no sense are refused, and told why`() {
        val all = mapOf("bits" to 8, "ratio" to 0.5)
        for ((name, why) in listOf(
            "" to "this app has lossless, or quantised, random_k, rotation, top_k joined by +",
            "masked" to "this app has lossless, or",
            "lossless+quantised" to "this app has lossless, or",
            "quantised+" to "this app has lossless, or",
            "top_k+top_k" to "a part comes twice",
            "top_k+random_k" to "exclude each other",
            "quantised+rotation" to "quantised must come last",
            "top_k+rotation" to "ends in rotation",
        )) {
            val reason = refused(name, all)
            assertTrue(reason.startsWith("the service asks for the codec $name: ") && why in reason, reason)
        }
    }

    @Test
    fun `options that do not fit the chain are refused, and told why`() {
        for ((name, options, why) in listOf(
            Triple("lossless", mapOf("bits" to 8), "it has no options, got bits"),
            Triple("quantised", mapOf("bits" to 8, "levels" to 3), "got levels"),
            Triple("quantised", emptyMap(), "it needs bits"),
            Triple("top_k", mapOf("ratio" to 0), "it needs ratio"),
            Triple("top_k", mapOf("ratio" to 0.5, "bits" to 8), "bits says nothing there"),
            Triple("quantised", mapOf("ratio" to 0.5, "bits" to 8), "ratio says nothing there"),
            Triple("quantised", mapOf("bits" to 3), "bits must be 8, 4 or 2, got 3"),
            Triple("quantised", mapOf("bits" to 8.0), "bits must be 8, 4 or 2, got 8.0"),
            Triple("quantised", mapOf("bits" to true), "bits must be 8, 4 or 2, got true"),
            Triple("random_k", mapOf("ratio" to 1.5), "ratio must be above 0 and at most 1, got 1.5"),
            Triple("random_k", mapOf("ratio" to -0.5), "ratio must be above 0 and at most 1, got -0.5"),
            Triple("random_k", mapOf("ratio" to true), "ratio must be above 0 and at most 1, got true"),
            Triple("top_k", mapOf("ratio" to 1, "error_feedback" to 1), "error_feedback must be true or false, got 1"),
        )) {
            val reason = refused(name, options)
            assertTrue(why in reason, "$name $options: $reason")
        }
    }

    @Test
    fun `what is 0 or false is as not given`() {
        val nothing = mapOf("bits" to 0, "ratio" to 0.0, "error_feedback" to false)
        assertSame(LosslessCodec, CodecByName.of("lossless", nothing))
        assertEquals(false, CodecByName.of("quantised", nothing + ("bits" to 2)).errorFeedback)
        assertEquals(true, CodecByName.of("top_k", mapOf("ratio" to 1, "error_feedback" to true)).errorFeedback)
    }

    @Test
    fun `only float32 is encoded, and no two tensors have one name`() {
        val codec = CodecByName.of("quantised", mapOf("bits" to 8))
        val doubles = mapOf("w" to HostTensor.zeros(ElementType.FLOAT64, 2))
        val exc = assertFailsWith<GivenUp> { codec.check(Update(doubles, emptyMap())) }
        assertEquals(
            "the service asks for a codec of float32 weights, its model's weight 'w' is float64",
            exc.reason,
        )
        LosslessCodec.check(Update(doubles, emptyMap()))
        val floats = mapOf("w" to HostTensor.zeros(ElementType.FLOAT32, 2))
        val twice = Update(floats, mapOf("delta/codes" to HostTensor.zeros(ElementType.FLOAT32, 2)))
        assertFailsWith<IllegalArgumentException> { codec.encode(twice, Seeds(0, 0)) }
        assertFailsWith<IllegalArgumentException> { LosslessCodec.encode(Update(floats, floats), Seeds(0, 0)) }
    }

    @Test
    fun `lossless is decoded as it was`() {
        val update = Update(LinearModel.weights(1f, 2f) - "seen", LinearModel.weights(1f, 2f, seen = 3) - "w")
        val body = LosslessCodec.encode(update, Seeds(0, 0))
        val found = LosslessCodec.decode(body, update, 0)
        assertEquals(listOf(1f, 2f), found.delta.getValue("w").floats().toList())
        assertEquals(3, found.beside.getValue("seen").values().getLong(0))
        assertFailsWith<FormatException> { LosslessCodec.decode(body - "w", update, 0) }
    }
}
