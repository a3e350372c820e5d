package org.pocketfleet.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import org.json.JSONArray

class DrawsTest {
    private val cases = RepositoryFile.json("tests/android_demo/cases/draws.json")

    @Test
    fun numbersAreMixedAsPythonMixesThem() {
        val rows = rows("mix", least = 6)
        for (row in rows) assertEquals(row.getString(1), hexadecimal(Draws.mix(word(row.getString(0)))))
    }

    @Test
    fun keysArePythonsForSeedsOf63BitsToo() {
        val rows = rows("key", least = 40)
        assertTrue(rows.any { it.getLong(0) == Long.MAX_VALUE })
        for (row in rows) {
            val indices = row.getJSONArray(2)
            val key = Draws.key(row.getLong(0), row.getString(1), *LongArray(indices.length(), indices::getLong))
            assertEquals(row.getString(3), hexadecimal(key), "$row")
        }
    }

    @Test
    fun uniformNumbersArePythonsToTheLastBit() {
        for (row in rows("uniform", least = 6)) {
            val wanted = row.getJSONArray(1)
            val found = Draws.uniform(word(row.getString(0)), wanted.length())
            assertContentEquals(DoubleArray(wanted.length(), wanted::getDouble), found)
        }
    }

    @Test
    fun aThousandPermutationsArePythons() {
        val rows = rows("permutation", least = 1_000)
        assertTrue(rows.count { it.getLong(0) > 1L shl 53 } > 900)
        for (row in rows) {
            val key = Draws.key(row.getLong(0), "epoch", row.getLong(1))
            assertEquals(row.getString(3), digest(Draws.permutation(key, row.getInt(2))), "$row")
        }
    }

    @Test
    fun wholePermutationsArePythons() {
        for (row in rows("whole_permutation", least = 8)) {
            val key = Draws.key(row.getLong(0), "epoch", row.getLong(1))
            assertEquals(row.getJSONArray(3).ints(), Draws.permutation(key, row.getInt(2)).toList())
        }
    }

    @Test
    fun numbersOfMasksArePythons() {
        val cases = cases.getJSONArray("dropout").objects()
        assertTrue(cases.size >= 9)
        for (case in cases) {
            val wanted = case.getJSONArray("numbers")
            val found = Draws.dropoutNumbers(word(case.getString("seed")), case.getInt("site"), wanted.length())
            // Floats of 24 bits are doubles exactly.
            assertEquals(List(wanted.length(), wanted::getDouble), found.map { it.toDouble() })
        }
    }

    @Test
    fun equalNumbersKeepTheirOrderAndNegativeOnesAreLarge() {
        // Without sign, -1 is the largest number there is, and Long.MIN_VALUE lies in the middle.
        val numbers = longArrayOf(-1, 5, Long.MIN_VALUE, 5, -1, 0, 5, Long.MAX_VALUE)
        assertEquals(listOf(5, 1, 3, 6, 7, 2, 0, 4), Draws.stableOrder(numbers).toList())
    }

    private fun rows(name: String, least: Int): List<JSONArray> =
        cases.getJSONArray(name).arrays().also { assertTrue(it.size >= least, "$name holds ${it.size} cases") }

    companion object {
        fun word(hexadecimal: String): Long = java.lang.Long.parseUnsignedLong(hexadecimal, 16)

        fun hexadecimal(word: Long): String = java.lang.Long.toHexString(word).padStart(16, '0')

        /** The first 16 digits of the SHA-256 of the numbers as little-endian `int32`. */
        fun digest(numbers: IntArray): String {
            val bytes = ByteBuffer.allocate(numbers.size * Int.SIZE_BYTES).order(ByteOrder.LITTLE_ENDIAN)
            for (number in numbers) bytes.putInt(number)
            return FileHash.of(bytes.array()).take(16)
        }
    }
}
