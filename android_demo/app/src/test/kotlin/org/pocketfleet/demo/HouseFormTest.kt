package org.pocketfleet.demo

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertNull

class HouseFormTest {
    private val form = HouseForm(listOf("CRIM", "RM"), "price")

    @Test
    fun `numbers are read as people write them`() {
        assertContentEquals(floatArrayOf(0.5f, -3f), form.features(listOf(" 0,5 ", "-3.")))
        assertContentEquals(floatArrayOf(1e-3f, 0.25f), form.features(listOf("1e-3", ".25")))
        val read = assertIs<HouseForm.Read.Example>(form.example(listOf("1", "2"), "24.5"))
        assertContentEquals(floatArrayOf(1f, 2f), read.x)
        assertEquals(24.5f, read.price)
    }

    @Test
    fun `the first wrong field is named, and whether it is empty`() {
        assertEquals(HouseForm.Read.Wrong("CRIM", empty = true), form.example(listOf(" ", "six"), ""))
        assertEquals(HouseForm.Read.Wrong("RM", empty = false), form.example(listOf("1", "six"), ""))
        assertEquals(HouseForm.Read.Wrong("price", empty = true), form.example(listOf("1", "2"), ""))
    }

    @Test
    fun `what Kotlin reads as a number but nobody means is none`() {
        for (text in listOf("NaN", "Infinity", "1f", "0x1p3", "1e99", "1 2", "--1", "")) {
            assertNull(form.features(listOf(text, "1")), text)
        }
    }

    @Test
    fun `another number of fields is the caller's mistake`() {
        val wrong = assertFailsWith<IllegalArgumentException> { form.features(listOf("1")) }
        assertEquals("the form has 2 fields, got 1", wrong.message)
    }
}
