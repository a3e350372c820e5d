package org.pocketfleet.demo

import org.pocketfleet.core.Batch
import org.pocketfleet.core.ElementType
import org.pocketfleet.core.ExampleSource
import org.pocketfleet.core.HostTensor
import java.io.File
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * The examples that the user gave, in a file that never leaves the phone: a row an example, in the order in which they
 * came.
 *
 * A row is the input's numbers and then the target, 4-byte floats, little-endian. A row that a crash cut short is
 * dropped by the next one. May be used from several threads.
 */
class OwnExamples(private val file: File, private val task: DemoTask) : ExampleSource {
    private val rowBytes = (task.values + 1) * Float.SIZE_BYTES

    @get:Synchronized
    override val count: Int get() = Math.toIntExact(file.length() / rowBytes)

    /**
     * Keep one more; it is on the disk when this returns.
     *
     * @param target the price, or the digit.
     * @throws java.io.IOException the phone's storage did not take it, and it is not there.
     */
    @Synchronized
    fun add(x: FloatArray, target: Float) {
        require(x.size == task.values) { "${task.word} takes ${task.values} numbers an example, got ${x.size}" }
        require(x.all(Float::isFinite) && target.isFinite()) { "an example's numbers are finite" }
        val row = ByteBuffer.allocate(rowBytes).order(ByteOrder.LITTLE_ENDIAN)
        x.forEach(row::putFloat)
        row.putFloat(target)
        RandomAccessFile(file, "rw").use { opened ->
            val whole = opened.length() / rowBytes * rowBytes
            opened.setLength(whole)
            opened.seek(whole)
            try {
                opened.write(row.array())
                opened.fd.sync()
            } catch (exception: java.io.IOException) {
                // A full disk may have taken half a row.
                opened.setLength(whole)
                throw exception
            }
        }
    }

    /** Forget them all. */
    @Synchronized
    fun clear() {
        if (file.exists() && !file.delete()) throw java.io.IOException("cannot delete $file")
    }

    @Synchronized
    override fun take(places: IntArray): Batch {
        val rows = places.map(::row)
        val size = places.size.toLong()
        val x = HostTensor.zeros(ElementType.FLOAT32, size, *task.shape.toLongArray())
        val y = HostTensor.zeros(task.targetType, size, *task.targetShape.toLongArray())
        val xs = x.values()
        val ys = y.values()
        for (row in rows) {
            repeat(task.values) { xs.putFloat(row.getFloat()) }
            val target = row.getFloat()
            if (task.targetType == ElementType.INT64) ys.putLong(target.toLong()) else ys.putFloat(target)
        }
        return Batch(x, y)
    }

    private fun row(place: Int): ByteBuffer {
        require(place in 0 until count) { "there are $count examples, numbered from 0, got $place" }
        val bytes = ByteArray(rowBytes)
        RandomAccessFile(file, "r").use { opened ->
            opened.seek(place.toLong() * rowBytes)
            opened.readFully(bytes)
        }
        return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
    }
}
