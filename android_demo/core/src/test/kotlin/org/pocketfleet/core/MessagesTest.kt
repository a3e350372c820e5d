package org.pocketfleet.core

import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertTrue
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Test

class MessagesTest {
    private val hash = "0123456789abcdef".repeat(4)

    private fun assignment() = JSONObject(
        """{"assignment_id": 9007199254740992, "work": "train", "round": 1, "model_version": 2, "deadline_in_s": 60,
            "program": "executorch", "bundle": {"model.pte": {"sha256": "$hash", "bytes": 7}},
            "weights": {"sha256": "$hash", "bytes": 8, "of": "the future"}, "broadcast": null,
            "algorithm": "fedprox", "algorithm_options": {"proximal_mu": 0.5, "private": ["head.*"]},
            "hyper": {"learning_rate": 0.1, "momentum": 1}, "epochs": 1, "steps": 0, "batch_size": 8,
            "batch_seed": 9223372036854775807, "codec": "top_k", "codec_options": {"ratio": 0.25, "error_feedback": true},
            "codec_seed": 9223372036854775806, "download_bits": 8, "update_bytes": 136, "partial_work": "discard",
            "news": [1], "rule": {"idle": true, "charging": false, "unmetered": true, "min_battery_ratio": 0.3,
            "min_examples": 5}}""",
    )

    private fun read(json: JSONObject) = Assignment.of(CheckedJson.parse(json.toString()))

    @Test
    fun `an assignment is read, what is unknown is not looked at`() {
        val found = read(assignment())
        assertEquals(9007199254740992, found.assignmentId)
        assertEquals(mapOf("model.pte" to FileEntry(hash, 7)), found.bundle)
        assertEquals(mapOf("learning_rate" to 0.1, "momentum" to 1.0), found.hyper)
        assertEquals(0.5, found.algorithmOptions["proximal_mu"])
        assertEquals(Rule(charging = false, minExamples = 5), found.rule)
        assertEquals(mapOf("ratio" to 0.25, "error_feedback" to true), found.codecOptions)
        assertEquals(9223372036854775806, found.codecSeed)
        assertEquals(8, found.downloadBits)
        assertEquals(null, found.broadcast)
        assertEquals(PartialWork.DISCARD, found.partialWork)
    }

    @Test
    fun `63 bits of a seed come through as they are`() {
        // As doubles these would be 2^63, 2^53 and 2^53 + 2.
        for (seed in listOf(Long.MAX_VALUE, (1L shl 53) + 1, 2189010849865370787, 0)) {
            val found = read(JSONObject(assignment().toString().replace("9223372036854775807", seed.toString())))
            assertEquals(seed, found.batchSeed)
            assertEquals(found, read(found.toJson()), "what the store keeps is another")
        }
        for (wrong in listOf("9223372036854775808", "1.0", "1e3", "-1", "\"7\"", "null")) {
            val text = assignment().toString().replace("9223372036854775807", wrong)
            val exc = assertFailsWith<FormatException>(wrong) { Assignment.of(CheckedJson.parse(text)) }
            assertTrue("batch_seed" in exc.message!!, "$wrong: ${exc.message}")
        }
    }

    @Test
    fun `each field that is missing or of another type is named`() {
        val optional = setOf("broadcast", "algorithm_options", "news")
        val names = assignment().keys().asSequence().map(Any?::toString).toSet() - optional
        assertEquals(21, names.size)
        for (name in names) {
            val other: Any = if (name in setOf("program", "algorithm", "codec")) 3 else "x"
            for (wrong in listOf(null, JSONObject.NULL, JSONArray(), other)) {
                val exc = assertFailsWith<FormatException>("$name = $wrong") { read(assignment().put(name, wrong)) }
                assertTrue(exc.message!!.startsWith(name), "$name = $wrong: ${exc.message}")
            }
        }
        val inside = listOf("weights" to "sha256", "weights" to "bytes", "rule" to "idle", "rule" to "min_examples")
        for ((outer, inner) in inside) {
            val json = assignment().apply { getJSONObject(outer).remove(inner) }
            val exc = assertFailsWith<FormatException> { read(json) }
            assertTrue(exc.message!!.startsWith("$outer.$inner"), exc.message)
        }
        val exc = assertFailsWith<FormatException> {
            read(assignment().apply { getJSONObject("rule").put("min_battery_ratio", 1.5) })
        }
        assertEquals("rule: min_battery_ratio must be 0 to 1, got 1.5", exc.message)
    }

    @Test
    fun `a check-in is answered exactly one thing`() {
        val released = """"released": {"version": 3, "weights": {"sha256": "$hash", "bytes": 8}}"""
        val away = """"turned_away": {"reason": "held", "message": "m", "retry_after_s": 0.5}"""
        fun read(text: String) = CheckInAnswer.of(CheckedJson.parse(text))
        val told = assertIs<Told.Away>(read("{$away, $released, \"assignment\": null}").told)
        assertEquals(TurnedAway("held", "m", 0.5), told.turnedAway)
        assertEquals(3, read("{$away, $released}").released.version)
        for (text in listOf("{$released}", """{$away, $released, "assignment": ${assignment()}}""")) {
            val exc = assertFailsWith<FormatException> { read(text) }
            assertTrue("exactly one of" in exc.message!!, exc.message)
        }
        assertFailsWith<FormatException> { read("{$away}") }
        for (wrong in listOf("-1", "\"1\"", "true")) {
            assertFailsWith<FormatException>(wrong) { read("{${away.replace("0.5", wrong)}, $released}") }
        }
    }

    @Test
    fun `what a device says has the protocol's names, and leaves out what it does not know`() {
        val phone = PhoneIdentity("Pixel 8", "Google", "14", 8L shl 30, "7")
        assertEquals(
            """{"app_version":"7","phone":{"manufacturer":"Google","memory_bytes":8589934592,"model":"Pixel 8",""" +
                """"os_version":"14"},"token":"t"}""",
            sorted(Enrolment("t", phone).toJson()),
        )
        assertEquals(
            """{"app_version":"7","codecs":["lossless","quantised","random_k","rotation","top_k",""" +
                """"error_feedback","quantised_download"],"conditions":{"battery_ratio":0.8,"charging":true,""" +
                """"free_memory_bytes":1073741824,"idle":true,"skin_celsius":30,""" +
                """"unmetered":true},"evaluates":true,"programs":{"executorch":"1"},"protocol":1}""",
            sorted(
                CheckIn(
                    mapOf("executorch" to "1"),
                    appVersion = "7",
                    conditions = Conditions.of(FakeSensors.ABLE),
                    evaluates = true,
                ).toJson(),
            ),
        )
        val evaluation = EvaluationReport(5, tried = null, released = 1.5).toJson()
        assertEquals("""{"num_held_out":5,"released":1.5,"tried":null}""", sorted(evaluation))
        assertEquals(
            """{"batch_size":8,"median_s":0.25,"method":"predict","peak_memory_bytes":9,"program":"executorch",""" +
                """"repeats":5,"runtime_version":"1.5"}""",
            sorted(BenchmarkResult("executorch", 8, 0.25, 5, "1.5", "predict", 9).toJson()),
        )
        val facts = ReportFacts(4, 1, 5, 0.1 + 0.2, 1e-7)
        assertEquals("0.30000000000000004", facts.toQuery()["train_loss"])
        assertEquals(facts, ReportFacts.of(CheckedJson.parse(facts.toJson().toString())))
    }

    /** Fields in the order of their names, which `org.json` does not promise. */
    private fun sorted(json: JSONObject): String =
        json.keys().asSequence().map(Any?::toString).sorted().joinToString(",", "{", "}") { name ->
            val value = json.get(name)
            // Behind `{"v":` and before `}`.
            fun plain() = JSONObject().put("v", value).toString().substring(5).dropLast(1)
            val text = if (value is JSONObject) sorted(value) else plain()
            "\"$name\":$text"
        }
}
