package org.pocketfleet.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.io.OutputStream
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Rule as TestRule
import org.junit.rules.TemporaryFolder

class SafeTensorsTest {
    @get:TestRule
    val folder = TemporaryFolder()

    private val cases = JSONArray(RepositoryFile.text("tests/android_demo/cases/tensors.json")).objects()

    @Test
    fun writtenBytesAreThoseOfPythonsLibrary() {
        assertTrue(cases.size >= 10)
        for (case in cases) {
            val tensors = tensors(case)
            val written = ByteArrayOutputStream().also { SafeTensors.write(tensors, it) }.toByteArray()
            assertEquals(case.getString("file"), FileHash.hexadecimal(written), case.getString("name"))
            assertEquals(written.size.toLong(), SafeTensors.size(tensors.kinds()), case.getString("name"))
        }
    }

    @Test
    fun theOrderInWhichTensorsAreGivenDoesNotMatter() {
        val case = cases.single { it.getString("name") == "names of all kinds" }
        val backwards = tensors(case).toList().reversed().toMap()
        val written = ByteArrayOutputStream().also { SafeTensors.write(backwards, it) }.toByteArray()
        assertEquals(case.getString("file"), FileHash.hexadecimal(written))
    }

    @Test
    fun pythonsFilesAreReadBitForBit() {
        for (case in cases) {
            val wanted = tensors(case)
            val found = SafeTensors.read(file(bytes(case.getString("file"))), 1L shl 20)
            assertEquals(wanted.keys.sortedWith(NameOrder), found.keys.toList())
            for ((name, tensor) in found) {
                assertEquals(wanted.getValue(name).type, tensor.type)
                assertContentEquals(wanted.getValue(name).shape, tensor.shape)
                assertEquals(wanted.getValue(name).values(), tensor.values())
            }
        }
    }

    @Test
    fun metadataAndOtherOrdersOfOtherWritersAreRead() {
        val header = """{ "__metadata__": {"made": "elsewhere"},
            "b": {"data_offsets": [0, 4], "shape": [1], "dtype": "F32"},
            "a": {"dtype": "I64", "shape": [], "data_offsets": [4, 12]}}"""
        val found = SafeTensors.read(file(framed(header, values = ByteArray(12))), 1L shl 20)
        assertEquals(listOf("a", "b"), found.keys.toList())
    }

    @Test
    fun whatIsNoSafetensorsIsRefusedByWhatIsWrong() {
        fun header(text: String, values: Int = 8) = framed(text, ByteArray(values))
        fun entry(type: String, shape: String, offsets: String) =
            """{"a": {"dtype": $type, "shape": $shape, "data_offsets": $offsets}}"""
        val wrong = mapOf(
            "it is no safetensors: 3 bytes hold no header's length" to ByteArray(3),
            "its header must end within its 8 bytes and be of 4194304 at most, it is of 1" to length(1),
            "at most, it is of 18446744073709551615" to length(-1) + ByteArray(100),
            "at most, it is of 9223372036854775807" to length(Long.MAX_VALUE) + ByteArray(100),
            "it is no JSON: it is not UTF-8" to length(2) + byteArrayOf(-1, -2),
            "it is no JSON: it needs a value" to header(""),
            "it is no JSON: it needs a name in quotes at character 1" to header("{a: 1}"),
            "it is no JSON: it holds the name \"a\" twice" to header("""{"a": {}, "a": {}}"""),
            "it is no JSON: it nests deeper than 32" to header("[".repeat(100_000)),
            "it must be a JSON object" to header("[]"),
            "a must be an object, got 1" to header("""{"a": 1}"""),
            "a.dtype must be a text, got nothing" to header("""{"a": {}}"""),
            "a.dtype must be a type that phones compute with: I64, F64, F32, I32, U8, BOOL, got \"F16\"" to
                header(entry("\"F16\"", "[4]", "[0, 8]")),
            "a.shape must be an array of whole numbers of 0 or more" to header(entry("\"F32\"", "[-2]", "[0, 8]")),
            "a.shape must be an array of whole numbers" to header(entry("\"F32\"", "[2.0]", "[0, 8]")),
            "a.data_offsets must be a begin and an end, got [0]" to header(entry("\"F32\"", "[2]", "[0]")),
            "a.data_offsets must be a begin and an end, got [8,0]" to header(entry("\"F32\"", "[2]", "[8, 0]")),
            "a.data_offsets must be an array of whole numbers" to
                header(entry("\"F32\"", "[2]", "[0, 99999999999999999999]")),
            "F32 [3] takes 12 bytes, its data_offsets [0, 8] give it 8" to header(entry("\"F32\"", "[3]", "[0, 8]")),
            "is larger than any" to header(entry("\"F32\"", "[4294967296, 4294967296]", "[0, 8]")),
            "no phone holds its 4294967296 bytes" to header(entry("\"U8\"", "[4294967296]", "[0, 4294967296]")),
            "bytes 0 to 4 of the values are no tensor's" to header(entry("\"F32\"", "[1]", "[4, 8]")),
            "its tensors take 8 bytes of values, it holds 9" to header(entry("\"F32\"", "[2]", "[0, 8]"), values = 9),
            "its tensors take 8 bytes of values, it holds 7" to header(entry("\"F32\"", "[2]", "[0, 8]"), values = 7),
            "tensor \"b\" begins at byte 4 of the values, inside the one before, which ends at 8" to header(
                """{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}""",
            ),
        )
        for ((message, bytes) in wrong) {
            val file = file(bytes)
            val refused = assertFailsWith<FormatException>(message) { SafeTensors.read(file, 1L shl 20) }
            val told = refused.message.orEmpty()
            assertTrue(message in told && told.startsWith("${file.name}: "), "must say <$message>, says <$told>")
        }
    }

    @Test
    fun aFileThatIsTooLongIsRefusedBeforeItIsHeld() {
        // 3 TB, none of which is on the disk.
        val file = folder.newFile()
        RandomAccessFile(file, "rw").use { it.setLength(3L shl 40) }
        val refused = assertFailsWith<FormatException> { SafeTensors.read(file, 1_000) }
        assertEquals("${file.name}: it is longer than it can be, ${3L shl 40} bytes: at most 1000", refused.message)
    }

    @Test
    fun aLongHeaderIsRefusedBeforeItIsHeld() {
        val file = file(length(50L shl 20))
        RandomAccessFile(file, "rw").use { it.setLength(60L shl 20) }
        val refused = assertFailsWith<FormatException> { SafeTensors.read(file, Long.MAX_VALUE) }
        assertTrue("be of 4194304 at most, it is of 52428800" in refused.message.orEmpty())
    }

    @Test
    fun tensorsGoOutInPieces() {
        val tensor = HostTensor.zeros(ElementType.FLOAT32, 1_000_000)
        var largest = 0
        var total = 0L
        val counting = object : OutputStream() {
            override fun write(byte: Int) = error("one byte at a time")

            override fun write(bytes: ByteArray, offset: Int, length: Int) {
                largest = maxOf(largest, length)
                total += length
            }
        }
        SafeTensors.write(mapOf("x" to tensor), counting)
        assertEquals(SafeTensors.size(mapOf("x" to tensor).kinds()), total)
        assertTrue(largest <= 64 * 1024, "a piece of $largest bytes")
        assertEquals(0, tensor.data.position())
    }

    @Test
    fun theLibrarysOwnNameIsNoTensors() {
        val tensors = mapOf("__metadata__" to HostTensor.zeros(ElementType.FLOAT32, 1))
        val refused = assertFailsWith<IllegalArgumentException> { SafeTensors.size(tensors.kinds()) }
        assertEquals("a tensor cannot have the name __metadata__", refused.message)
    }

    private fun tensors(case: JSONObject): Tensors = case.getJSONArray("tensors").objects().associate { told ->
        val shape = told.getJSONArray("shape")
        val type = checkNotNull(ElementType.ofManifest(told.getString("dtype")))
        val tensor = HostTensor.zeros(type, *LongArray(shape.length(), shape::getLong))
        tensor.values().put(bytes(told.getString("values")))
        told.getString("name") to tensor
    }

    private fun bytes(hexadecimal: String): ByteArray =
        hexadecimal.chunked(2).map { it.toInt(16).toByte() }.toByteArray()

    private fun length(bytes: Long): ByteArray =
        ByteBuffer.allocate(Long.SIZE_BYTES).order(ByteOrder.LITTLE_ENDIAN).putLong(bytes).array()

    private fun framed(header: String, values: ByteArray): ByteArray =
        header.toByteArray().let { length(it.size.toLong()) + it + values }

    private fun file(bytes: ByteArray): File = folder.newFile().apply { writeBytes(bytes) }
}
