package org.pocketfleet.demo

import org.json.JSONArray
import org.json.JSONObject
import org.pocketfleet.core.BundleException
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class BundleFactsTest {
    @Test
    fun `text is that of Python's json`() {
        val value = JSONObject()
            .put("b", JSONArray().put(1).put("batch").put(JSONObject()))
            .put("a\"\\\n", "\u00e9\u2028\ud83d\ude00\u007f\u0001")
            .put("c", true)
        // json.dumps({"b": [1, "batch", {}], "a\"\\\n": "\u00e9\u2028\U0001f600\x7f\x01", "c": True}, sort_keys=True)
        val wanted = """{"a\"\\\n": "\u00e9\u2028\ud83d\ude00${'\u007f'}\u0001", "b": [1, "batch", {}], "c": true}"""
        assertEquals(wanted, BundleFacts.sortedText(value))
    }

    @Test
    fun `a number whose text could differ is refused`() {
        assertFailsWith<BundleException> { BundleFacts.sortedText(JSONObject().put("a", 0.1)) }
    }
}
