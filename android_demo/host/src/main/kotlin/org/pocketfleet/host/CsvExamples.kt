package org.pocketfleet.host

import java.io.File
import org.pocketfleet.core.Batch
import org.pocketfleet.core.ElementType
import org.pocketfleet.core.ExampleSource
import org.pocketfleet.core.HostTensor

/** Rows of a CSV file: the first line names the columns, the last column is the target, all values are numbers. */
class CsvExamples private constructor(private val rows: List<FloatArray>) : ExampleSource {
    override val count: Int get() = rows.size

    override fun take(places: IntArray): Batch {
        val batch = places.size.toLong()
        val width = rows.first().size - 1
        val x = HostTensor.zeros(ElementType.FLOAT32, batch, width.toLong())
        val y = HostTensor.zeros(ElementType.FLOAT32, batch, 1)
        val xs = x.values().asFloatBuffer()
        val ys = y.values().asFloatBuffer()
        for (place in places) {
            xs.put(rows[place], 0, width)
            ys.put(rows[place][width])
        }
        return Batch(x, y)
    }

    companion object {
        /** @throws IllegalArgumentException [file] is no such table; the message says where. */
        fun read(file: File): CsvExamples {
            val lines = file.readLines().filter { it.isNotBlank() }
            require(lines.size > 1) { "$file holds no examples below the names of its columns" }
            val columns = lines.first().split(',').size
            val rows = lines.drop(1).mapIndexed { number, line ->
                val values = line.split(',').map { it.trim().toFloatOrNull()?.takeIf(Float::isFinite) }
                require(values.size == columns && null !in values) {
                    "$file, line ${number + 2}: $columns finite numbers are wanted, got $line"
                }
                values.filterNotNull().toFloatArray()
            }
            return CsvExamples(rows)
        }
    }
}
