package org.pocketfleet.core

import java.io.File
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.json.JSONObject
import org.junit.Rule as JUnitRule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** The encodings that Python wrote, bit for bit. */
class CodecCasesTest {
    @get:JUnitRule
    val folder = TemporaryFolder()
    private val cases = RepositoryFile.json("tests/codec_cases.json")
    private val updates = cases.getJSONObject("updates").let { all ->
        all.fieldNames().associateWith { all.getJSONObject(it) }
    }

    private fun JSONObject.fieldNames() = keys().asSequence().map { it.toString() }.toList()

    private fun JSONObject.tensors(group: String): Tensors = getJSONObject(group).let { all ->
        all.fieldNames().associateWith { tensor(all.getJSONObject(it)) }
    }

    private fun tensor(json: JSONObject): HostTensor {
        val shape = json.getJSONArray("shape").ints().map(Int::toLong).toLongArray()
        val type = checkNotNull(ElementType.ofSafetensors(json.getString("dtype")))
        return HostTensor.zeros(type, *shape).also { it.values().put(bytes(json.getString("hex"))) }
    }

    private fun update(name: String): Update = updates.getValue(name).let { one ->
        val extra = one.tensors("extra").mapKeys { "extra/${it.key}" }
        Update(one.tensors("delta"), one.tensors("buffers") + extra)
    }

    private fun codec(one: JSONObject) = one.getJSONObject("codec_options").let { options ->
        CodecByName.of(one.getString("codec"), options.fieldNames().associateWith { options.get(it) })
    }

    private fun bytes(text: String) =
        ByteArray(text.length / 2) { text.substring(2 * it, 2 * it + 2).toInt(16).toByte() }

    /** Bytes as the cases show them: of the large update their SHA-256. */
    private fun shown(update: String, bytes: ByteArray) =
        if (update == "small") bytes.joinToString("") { "%02x".format(it) } else FileHash.of(bytes)

    /** Tensors as one vector, in the order of their names. */
    private fun vector(tensors: Tensors): ByteArray =
        tensors.toSortedMap(NameOrder).values.map { tensor ->
            ByteArray(tensor.data.capacity()).also { tensor.values().get(it) }
        }.fold(ByteArray(0), ByteArray::plus)

    private fun read(hex: String): Tensors =
        SafeTensors.read(File(folder.root, "body").apply { writeBytes(bytes(hex)) }, mostBytes = 1L shl 20)

    @Test
    fun `bodies, what arrives of them and what stays behind are Python's`() {
        val encodings = cases.getJSONArray("encodings").objects()
        assertEquals(24, encodings.size)
        for (one in encodings) {
            val (codec, name) = codec(one) to one.getString("update")
            val told = "$name ${one.getString("codec")} ${one.getJSONObject("codec_options")}"
            val update = update(name)
            val seeds = Seeds(one.getLong("codec_seed"), one.getLong("batch_seed"))
            val residual = updates.getValue(name).tensors("residual")
            val wanted = if (codec.errorFeedback) ErrorFeedback.compensated(update, residual) else update
            val body = codec.encode(wanted, seeds)
            assertEquals(one.getString("body"), shown(name, LinearModel.bytes(body)), told)
            assertEquals(one.getLong("bytes"), SafeTensors.size(codec.kinds(update)), told)
            val arrived = codec.decode(body, update, seeds.shared)
            assertEquals(one.getString("delta"), shown(name, vector(arrived.delta)), told)
            assertEquals(update.beside.keys, arrived.beside.keys, told)
            assertEquals(codec.errorFeedback, one.has("residual_after"), told)
            if (codec.errorFeedback) {
                val after = ErrorFeedback.residualAfter(wanted, arrived)
                assertEquals(one.getString("residual_after"), shown(name, vector(after)), told)
            }
        }
    }

    @Test
    fun `what a device says and keeps is the same, and nothing that is not finite`() {
        val feeding = cases.getJSONArray("encodings").objects().filter {
            it.getString("update") == "large" && it.has("residual_after")
        }
        assertEquals(4, feeding.size)
        val update = update("large")
        for (one in feeding) {
            val seeds = Seeds(one.getLong("codec_seed"), one.getLong("batch_seed"))
            val kept = updates.getValue("large").tensors("residual")
            val said = ErrorFeedback.said(codec(one), update, kept, seeds)!!
            assertEquals(one.getString("body"), shown("large", LinearModel.bytes(said.body)))
            assertEquals(one.getString("residual_after"), shown("large", vector(said.residual)))
        }
        val seeds = Seeds(0, 0)
        // A rotation adds up: a sum of four thousand of these is no float.
        val huge = Update(mapOf("w" to HostTensor.of(FloatArray(4096) { 3e38f }, 4096)), emptyMap())
        val endless = Update(mapOf("w" to HostTensor.of(floatArrayOf(Float.NaN), 1)), emptyMap())
        val rotated = CodecByName.of("rotation+quantised", mapOf("bits" to 8))
        for (wrong in listOf(huge, endless)) assertEquals(null, ErrorFeedback.said(rotated, wrong, emptyMap(), seeds))
    }

    @Test
    fun `a residual of another model is none`() {
        val update = update("large")
        val codec = CodecByName.of("top_k", mapOf("ratio" to 0.1, "error_feedback" to true))
        val other = mapOf("w" to HostTensor.of(floatArrayOf(1f), 1))
        val bodies = listOf(other, emptyMap()).map { ErrorFeedback.said(codec, update, it, Seeds(1, 1))!!.body }
        assertEquals(vector(bodies[0]).toList(), vector(bodies[1]).toList())
        // Added zeros turn a zero below into one above.
        val zero = Update(mapOf("w" to HostTensor.of(floatArrayOf(-0f), 1)), emptyMap())
        val said = ErrorFeedback.said(codec, zero, emptyMap(), Seeds(1, 1))!!
        assertEquals(0, said.body.getValue("delta/values").values().getInt(0))
    }

    @Test
    fun `rounded versions are decoded to Python's bits`() {
        val small = updates.getValue("small")
        val (trainable, buffers) = small.tensors("delta").kinds() to small.tensors("buffers").kinds()
        fun specs(role: Role, kinds: Map<String, TensorKind>) =
            kinds.map { (name, kind) -> TensorSpec(role, name, kind.shape, kind.type) }
        val step = MethodSignature(specs(Role.TRAINABLE, trainable) + specs(Role.BUFFER, buffers), emptyList())
        val rounded = cases.getJSONArray("downloads").objects().filter { it.getInt("download_bits") > 0 }
        assertEquals(setOf(8, 4, 2), rounded.map { it.getInt("download_bits") }.toSet())
        for (one in rounded) {
            val codec = DownloadCodec(step, one.getInt("download_bits"))
            val body = one.getString("body")
            assertEquals(body.length / 2L, codec.bytes)
            val found = codec.decoded(read(body))
            assertEquals(one.getString("weights"), shown("small", vector(found - buffers.keys)))
            assertEquals(vector(small.tensors("buffers")).toList(), vector(found - trainable.keys).toList())
            assertFailsWith<FormatException> { codec.decoded(read(body) - "weights/steps") }
        }
    }

    @Test
    fun `bodies that are none are refused, and told why`() {
        val messages = mapOf(
            "places do not rise" to "places of kept values must rise",
            "a step is no number" to "steps of quantisation must be finite",
            "a step is negative" to "steps of quantisation must be finite and 0 or more",
            "a code is 15" to "codes of 4 bits must be 0 to 14, got 15",
            "a tensor is missing" to "tensor 'delta/steps' must be float32 [1], got none",
            "a tensor more" to "tensor 'more' must be none, got float32 [1]",
        )
        val refused = cases.getJSONArray("refused").objects()
        assertEquals(messages.keys, refused.map { it.getString("wrong") }.toSet())
        for (one in refused) {
            val exc = assertFailsWith<FormatException>(one.getString("wrong")) {
                codec(one).decode(read(one.getString("body")), update("small"), one.getLong("codec_seed"))
            }
            assertTrue(messages.getValue(one.getString("wrong")) in exc.message!!, exc.message)
        }
        val exc = assertFailsWith<FormatException> { Packing(4).unpacked(byteArrayOf(0x21, 0x43), 3) }
        assertEquals("the bits after 3 codes of 4 bits must be 0", exc.message)
    }
}
