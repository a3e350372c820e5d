package org.pocketfleet.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class CheckedJsonTest {
    @Test
    fun fieldsAreReadByTheirTypes() {
        val json = CheckedJson.parse(
            """ {"text": "\u00e4\n", "flag": false, "large": 9223372036854775807, "small": -1, "half": 5e-1,
            "part": {"inside": [1, "two", null]}, "parts": [{"at": 0}, {"at": 1}], "null": null} """,
        )
        assertEquals("ä\n", json.text("text"))
        assertEquals(false, json.flag("flag"))
        assertEquals(Long.MAX_VALUE, json.whole("large"))
        assertEquals(-1, json.whole("small", -5L..5L))
        assertEquals(0.5, json.number("half"))
        assertEquals(-1.0, json.number("small"))
        assertEquals(listOf<Any>(1, "two"), json.part("part").items("inside").take(2))
        assertEquals(listOf(0L, 1L), json.parts("parts").map { it.whole("at") })
        assertEquals(listOf(false, false, true), listOf("null", "absent", "text").map(json::has))
    }

    @Test
    fun whatIsWrongIsNamedByItsPath() {
        val json = CheckedJson.parse("""{"a": {"b": [{"c": "text"}, 2]}, "large": 9223372036854775808, "one": 1.0}""")
        val inside = CheckedJson.parse("""{"a": {"b": [{}, {"c": "text"}]}}""").part("a").parts("b")[1]
        assertEquals("a.b.1.c must be a whole number from 0 to 7, got \"text\"", failure { inside.whole("c", 0L..7L) })
        assertEquals("a.b.1 must be an object, got 2", failure { json.part("a").parts("b") })
        assertEquals("a.d must be a text, got nothing", failure { json.part("a").text("d") })
        assertEquals("a.b must be true or false, got [{\"c\":\"text\"},2]", failure { json.part("a").flag("b") })
        assertTrue(failure { json.whole("large") }.startsWith("large must be a whole number"))
        assertTrue(failure { json.whole("one") }.startsWith("one must be a whole number"))
        assertEquals("a must be an array, got {\"b\":[{\"c\":\"text\"},2]}", failure { json.items("a") })
    }

    @Test
    fun littleOfALongValueIsRepeated() {
        val json = CheckedJson.parse("""{"a": "${"x".repeat(100_000)}"}""")
        assertTrue(failure { json.whole("a") }.length < 300)
    }

    @Test
    fun whatOrgJsonReadsButIsNoJsonIsRefused() {
        val wrong = mapOf(
            "" to "it is no JSON: it needs a value at its end",
            "{" to "it is no JSON: it needs a name in quotes at its end",
            "{'a': 1}" to "it is no JSON: it needs a name in quotes at character 1",
            "{\"a\": b}" to "it is no JSON: it needs a value at character 6",
            "{\"a\"= 1}" to "it is no JSON: it needs ':' at character 4",
            "{\"a\": 1; \"b\": 2}" to "it is no JSON: it needs ',' at character 7",
            "{\"a\": 1,}" to "it is no JSON: it needs a name in quotes at character 8",
            "{\"a\": 010}" to "it is no JSON: it needs ',' at character 7",
            "{\"a\": 0x10}" to "it is no JSON: it needs ',' at character 7",
            "{\"a\": NaN}" to "it is no JSON: it needs a value at character 6",
            "{\"a\": -}" to "it is no JSON: it needs a value at character 7",
            "{\"a\": 1.}" to "it is no JSON: it needs a value at character 8",
            "{\"a\": trouble}" to "it is no JSON: it needs a value at character 6",
            "{\"a\": \"\\x\"}" to "it is no JSON: it has an unknown escape at character 9",
            "{\"a\": \"\\u12g4\"}" to "it is no JSON: it has a broken \\u escape at character 11",
            "{\"a\": \"\n\"}" to "it is no JSON: it has a control character in a string at character 8",
            "{\"a\": \"b" to "it is no JSON: it ends within a string at its end",
            "{} {}" to "it is no JSON: it goes on behind its value at character 3",
            "// a comment\n{}" to "it is no JSON: it needs a value at character 0",
            "{\"a\": 1, \"a\": 2}" to "it is no JSON: it holds the name \"a\" twice at character 12",
            "[1]" to "it must be a JSON object",
            "{\"a\": 1e999}" to "it must be a JSON object",
        )
        for ((text, message) in wrong) {
            val told = failure { CheckedJson.parse(text) }
            assertTrue(told.startsWith(message), "<$text> must say <$message>, says <$told>")
        }
    }

    @Test
    fun nestingIsBounded() {
        fun nested(depth: Int) = "{\"a\":" + "[".repeat(depth - 1) + "]".repeat(depth - 1) + "}"
        CheckedJson.parse(nested(JsonGrammar.MOST_DEPTH))
        assertTrue("nests deeper than 32" in failure { CheckedJson.parse(nested(JsonGrammar.MOST_DEPTH + 1)) })
        assertTrue("nests deeper than 32" in failure { CheckedJson.parse(nested(1_000_000)) })
    }

    private fun failure(block: () -> Unit): String = assertFailsWith<FormatException> { block() }.message.orEmpty()
}
