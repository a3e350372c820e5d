package org.pocketfleet.core

import java.io.EOFException
import java.io.File
import java.io.FileInputStream
import java.io.OutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.Channels
import java.nio.channels.FileChannel

/**
 * Tensors as safetensors: canonical bytes out, checked bytes in; no more in memory than the tensors and the header.
 *
 * Eight bytes of little-endian header length; the header, JSON without blanks, by type as in `TYPE_ORDER`, then by
 * name, filled up with blanks to a multiple of 8; the values, one tensor behind the other.
 * Source: github.com/huggingface/safetensors.
 */
object SafeTensors {
    // As safetensors 0.8 lays types out: widest first.
    private val TYPE_ORDER = listOf(
        ElementType.INT64,
        ElementType.FLOAT64,
        ElementType.FLOAT32,
        ElementType.INT32,
        ElementType.UINT8,
        ElementType.BOOL,
    )
    private val LAID_OUT = compareBy<Pair<String, TensorKind>> { TYPE_ORDER.indexOf(it.second.type) }
        .thenBy(NameOrder) { it.first }

    /** The library allows 100 MB, more than a phone's parser survives; MobileNetV2's names and shapes fill 30 kB. */
    const val HEADER_LIMIT_BYTES = 4L shl 20
    private const val LENGTH_BYTES = 8
    private const val METADATA = "__metadata__"
    private const val TOLD_CHARACTERS = 200

    /** How long the file of tensors of these [kinds] is. */
    fun size(kinds: Map<String, TensorKind>): Long {
        val ordered = ordered(kinds)
        return LENGTH_BYTES + header(ordered).size + ordered.sumOf { (_, kind) -> kind.bytes }
    }

    /** Write the canonical bytes: those of the Python library's `save` without metadata. [out] stays open. */
    fun write(tensors: Tensors, out: OutputStream) {
        val ordered = ordered(tensors.kinds())
        val header = header(ordered)
        val length = ByteBuffer.allocate(LENGTH_BYTES).order(ByteOrder.LITTLE_ENDIAN).putLong(header.size.toLong())
        out.write(length.array())
        out.write(header)
        // Copies in pieces of a few kilobytes.
        val channel = Channels.newChannel(out)
        for ((name, _) in ordered) {
            val values = tensors.getValue(name).values()
            while (values.hasRemaining()) channel.write(values)
        }
        out.flush()
    }

    /**
     * The tensors of a file, in the order of their names.
     *
     * @param mostBytes a longer file is refused before anything of it is held.
     * @throws FormatException it is no safetensors of types that phones compute with, or a longer one.
     */
    fun read(file: File, mostBytes: Long): Tensors = FileInputStream(file).channel.use { channel ->
        try {
            read(channel, mostBytes)
        } catch (e: FormatException) {
            throw FormatException("${file.name}: ${e.message}", e)
        } catch (e: EOFException) {
            throw FormatException("${file.name}: it was cut while it was read", e)
        }
    }

    private fun read(channel: FileChannel, mostBytes: Long): Tensors {
        val size = channel.size()
        if (size > mostBytes) throw FormatException("it is longer than it can be, $size bytes: at most $mostBytes")
        if (size < LENGTH_BYTES) throw FormatException("it is no safetensors: $size bytes hold no header's length")
        val headerBytes = filled(channel, LENGTH_BYTES).getLong(0)
        if (headerBytes !in 0..minOf(HEADER_LIMIT_BYTES, size - LENGTH_BYTES)) {
            val told = java.lang.Long.toUnsignedString(headerBytes)
            throw FormatException(
                "its header must end within its $size bytes and be of $HEADER_LIMIT_BYTES at most, it is of $told",
            )
        }
        val header = CheckedJson.parse(ByteArray(headerBytes.toInt()).also { filled(channel, it.size).get(it) })
        val entries = header.names.minus(METADATA).map { entry(it, header.part(it)) }
        // An empty tensor lies before the one that begins where it does.
        val laidOut = entries.sortedWith(compareBy({ it.begin }, { it.end }))
        checkCovered(laidOut, size - LENGTH_BYTES - headerBytes)
        return laidOut
            .associate { it.name to HostTensor(it.type, it.shape, filled(channel, (it.end - it.begin).toInt())) }
            .toSortedMap(NameOrder)
    }

    private class Entry(val name: String, val type: ElementType, val shape: LongArray, val begin: Long, val end: Long)

    private fun entry(name: String, json: CheckedJson): Entry {
        val type = ElementType.ofSafetensors(json.text("dtype"))
            ?: json.wrong("dtype", "a type that phones compute with: ${TYPE_ORDER.joinToString { it.safetensorsName }}")
        val shape = json.wholes("shape")
        val offsets = json.wholes("data_offsets")
        if (offsets.size != 2 || offsets[0] > offsets[1]) json.wrong("data_offsets", "a begin and an end")
        val bytes = try {
            shape.fold(type.bytes.toLong()) { product, count -> Math.multiplyExact(product, count) }
        } catch (e: ArithmeticException) {
            throw FormatException("tensor ${told(name)}: its shape ${shape.contentToString()} is larger than any", e)
        }
        if (offsets[1] - offsets[0] != bytes) {
            throw FormatException(
                "tensor ${told(name)}: ${type.safetensorsName} ${shape.contentToString()} takes $bytes bytes, its " +
                    "data_offsets ${offsets.contentToString()} give it ${offsets[1] - offsets[0]}",
            )
        }
        if (bytes > Int.MAX_VALUE) throw FormatException("tensor ${told(name)}: no phone holds its $bytes bytes")
        return Entry(name, type, shape, offsets[0], offsets[1])
    }

    private fun CheckedJson.wholes(name: String): LongArray = items(name).map {
        CheckedJson.wholeOf(it, 0..Long.MAX_VALUE) ?: wrong(name, "an array of whole numbers of 0 or more")
    }.toLongArray()

    private fun checkCovered(laidOut: List<Entry>, bytes: Long) {
        var end = 0L
        for (entry in laidOut) {
            if (entry.begin < end) {
                throw FormatException(
                    "tensor ${told(entry.name)} begins at byte ${entry.begin} of the values, inside the one before, " +
                        "which ends at $end",
                )
            }
            if (entry.begin > end) throw FormatException("bytes $end to ${entry.begin} of the values are no tensor's")
            end = entry.end
        }
        if (end != bytes) throw FormatException("its tensors take $end bytes of values, it holds $bytes")
    }

    private fun filled(channel: FileChannel, bytes: Int): ByteBuffer {
        val buffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.LITTLE_ENDIAN)
        while (buffer.hasRemaining()) if (channel.read(buffer) < 0) throw EOFException()
        return buffer.also(HostTensor::fromTheFirst)
    }

    private fun ordered(kinds: Map<String, TensorKind>): List<Pair<String, TensorKind>> =
        kinds.toList().sortedWith(LAID_OUT)

    private fun header(ordered: List<Pair<String, TensorKind>>): ByteArray {
        var begin = 0L
        val entries = ordered.map { (name, kind) ->
            require(name != METADATA) { "a tensor cannot have the name $METADATA" }
            val end = begin + kind.bytes
            val shape = kind.shape.joinToString(",")
            val offsets = "$begin,$end"
            begin = end
            val type = kind.type.safetensorsName
            "${quoted(name)}:{\"dtype\":\"$type\",\"shape\":[$shape],\"data_offsets\":[$offsets]}"
        }
        val json = entries.joinToString(",", "{", "}").toByteArray()
        val filled = (json.size + LENGTH_BYTES - 1) / LENGTH_BYTES * LENGTH_BYTES
        return json.copyOf(filled).apply { fill(' '.code.toByte(), json.size, filled) }
    }

    /** As the library's writer of JSON quotes: no more is escaped than must be. */
    private fun quoted(name: String): String = name.fold(StringBuilder("\"")) { text, char ->
        when (char) {
            '"', '\\' -> text.append('\\').append(char)
            '\b' -> text.append("\\b")
            '\t' -> text.append("\\t")
            '\n' -> text.append("\\n")
            '\u000c' -> text.append("\\f")
            '\r' -> text.append("\\r")
            in '\u0000'..'\u001f' -> text.append("\\u00").append(char.code.toString(16).padStart(2, '0'))
            else -> text.append(char)
        }
    }.append('"').toString()

    private fun told(name: String) = quoted(name).take(TOLD_CHARACTERS)
}
