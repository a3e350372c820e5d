package org.pocketfleet.core

import java.io.File
import kotlin.math.abs
import kotlin.test.assertEquals
import kotlin.test.assertIs
import kotlin.test.assertNotNull
import kotlin.test.assertTrue
import org.json.JSONObject
import org.junit.After
import org.junit.Rule as JUnitRule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** Rounds whose reports and downloads are of few bytes. */
class RoundLoopCodecTest {
    @get:JUnitRule
    val folder = TemporaryFolder()
    private lateinit var service: TinyService

    @After
    fun close() = service.close()

    private fun serve(terms: (JSONObject) -> Unit) {
        service = TinyService(terms = terms)
        TinyDevice.enrol(service, folder.root)
    }

    private fun visit() = TinyDevice(service, folder.root).visit()

    private fun tensors(data: ByteArray) =
        SafeTensors.read(File(folder.root, "looked-at").apply { writeBytes(data) }, 1 shl 16)

    private fun own() = SafeTensors.read(assertNotNull(DeviceStore(folder.root).ownModel()), 1 shl 16)

    private fun residual() = DeviceStore(folder.root).residual()["w"]?.floats()?.toList()

    /** The value and the place that a report by `top_k` of one of two says. */
    private fun said(data: ByteArray): Pair<Float, Int> = tensors(data).let {
        it.getValue("delta/values").floats().single() to it.getValue("delta/places").bytes().single().toInt()
    }

    @Test
    fun `what a report does not say is added to the next that counts`() {
        serve(TinyService.coded("top_k", mapOf("ratio" to 0.5, "error_feedback" to true)))
        assertIs<RoundOutcome.Reported>(visit())
        val delta = own().getValue("w").floats().let { floatArrayOf(it[0] - 0.5f, it[1] + 0.5f) }
        val larger = if (abs(delta[0]) >= abs(delta[1])) 0 else 1
        assertEquals(delta[larger] to larger, said(service.counted.getValue(0)))
        assertEquals(6, tensors(service.counted.getValue(0)).getValue("seen").values().getLong(0))
        val first = FloatArray(2) { if (it == larger) 0f else delta[it] }.toList()
        assertEquals(first, residual())

        // What does not count changes nothing.
        service.counted.clear()
        service.fault = { request, exchange ->
            request.startsWith("PUT reports/").also { if (it) exchange.refuse(409, "late") }
        }
        assertEquals(RoundOutcome.Dropped("late"), visit())
        assertEquals(first, residual())

        // The same weights, seed and examples: the same delta once more.
        service.fault = { _, _ -> false }
        assertIs<RoundOutcome.Reported>(visit())
        val wanted = FloatArray(2) { delta[it] + first[it] }
        val then = if (abs(wanted[0]) >= abs(wanted[1])) 0 else 1
        assertEquals(wanted[then] to then, said(service.counted.values.single()))
        assertEquals(FloatArray(2) { if (it == then) 0f else wanted[it] }.toList(), residual())
    }

    @Test
    fun `without error feedback nothing is kept`() {
        serve(TinyService.coded("rotation+random_k+quantised", mapOf("ratio" to 0.5, "bits" to 4)))
        assertIs<RoundOutcome.Reported>(visit())
        // Two weights become 64 values, of which 32 are sent, at 4 bits.
        assertEquals(16, tensors(service.counted.getValue(0)).getValue("delta/codes").count)
        assertEquals(null, residual())
    }

    @Test
    fun `training starts from the weights that a rounded version decodes to`() {
        // The larger is 127 steps, and 0.3 is 76.2 of them.
        val coded = CodedVector(Blocks(listOf(2)), 8, "weights/").encoded(floatArrayOf(-0.5f, 0.3f), null)
        val version = LinearModel.bytes(coded + (LinearModel.weights(0f, 0f) - "w"))
        serve { it.put("download_bits", 8).put("weights", LinearModel.entry(version).toJson()) }
        service.files[FileHash.of(version)] = version
        assertIs<RoundOutcome.Reported>(visit())
        assertEquals(8, DeviceStore(folder.root).downloadBits())
        val update = tensors(service.counted.getValue(0)).getValue("w").floats()
        val own = own().getValue("w").floats()
        val step = 0.5f / 127f
        assertEquals(listOf(own[0] + 127f * step, own[1] - 76f * step), update.toList())
    }

    @Test
    fun `a version that is not rounded as the service says is refused`() {
        serve { it.put("download_bits", 8) }
        val outcome = assertIs<RoundOutcome.Dropped>(visit())
        assertTrue("the weights of version 0 are not this bundle's" in outcome.reason, outcome.reason)
    }

    @Test
    fun `what a device can do is said at check-in`() {
        val bodies = mutableListOf<JSONObject>()
        serve { }
        service.fault = { request, exchange ->
            (request == "POST check-in").also {
                if (it) {
                    bodies += JSONObject(String(exchange.requestBody.readBytes()))
                    exchange.refuse(422, "wrong_message")
                }
            }
        }
        runCatching { visit() }
        val parts = bodies.single().getJSONArray("codecs").let { array -> List(array.length(), array::getString) }
        assertEquals(
            listOf("lossless", "quantised", "random_k", "rotation", "top_k", "error_feedback", "quantised_download"),
            parts,
        )
    }
}
