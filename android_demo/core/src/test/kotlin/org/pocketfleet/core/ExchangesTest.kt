package org.pocketfleet.core

import com.sun.net.httpserver.HttpExchange
import java.io.Closeable
import java.io.File
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.runBlocking
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Rule as JUnitRule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** The recorded conversation of a device with the service, which clients of every language hold. */
class ExchangesTest {
    @get:JUnitRule
    val folder = TemporaryFolder()

    // What this client has no call for: it never leaves a field out, never asks whether what it holds changed, and
    // knows of no stages.
    private val notMade = setOf(
        "check in with a field missing",
        "ask whether they changed",
        "a stage of a round without stages",
    )
    private val recorded = JSONArray(RepositoryFile.text("tests/protocol/exchanges.json")).objects()
    private val made = recorded.filterNot { it.getJSONObject("request").getString("title") in notMade }
    private val weights = "c67bbe8512645eb05c0403d4eadecd33104a4787e37bb55a0205f572861c2b27"
    private val onnx = mapOf("onnx" to "1.31.0")
    private val facts = ReportFacts(numExamples = 4, steps = 1, examplesHeld = 5, trainLoss = 0.5)
    private val once = Patience(tries = 1)

    @Test
    fun `the client says what was recorded, and understands what was answered`() {
        assertEquals(notMade.size, recorded.size - made.size, "a title that is not made is not in the file")
        assertEquals(30, made.size, "exchanges were added or taken away: say here which the client makes")
        Replay(made, weights).use { replay -> runBlocking { converse(replay) } }
    }

    private suspend fun converse(replay: Replay) {
        val client = client(replay)
        refused(401, "wrong_token") { client.enrol(Enrolment("none"), once) }
        val phone = PhoneIdentity("Pixel 8", "", "", 0, "7")
        assertEquals(Enrolled("the-device", "the-credential"), client.enrol(Enrolment("the-token", phone), once))
        refused(401, "wrong_token") { client.enrol(Enrolment("the-token"), once) }
        refused(401, "no_credential") { client.checkIn(CheckIn(onnx, codecs = listOf("lossless"), appVersion = "7"), once) }
        client.credential = "the-credential"

        val checkIn = CheckIn(onnx, codecs = listOf("lossless"), appVersion = "7")
        assertEquals(
            TurnedAway("upgrade", "this service speaks protocol 1, got 2: another app is needed", null),
            away(client, checkIn.copy(protocol = 2)),
        )
        assertEquals("no_program", away(client, checkIn.copy(programs = mapOf("tflite" to "2"))).reason)
        val able = Conditions(idle = true, charging = true, unmetered = true, batteryRatio = 0.8)
        val work = assertIs<Told.Train>(client.checkIn(checkIn.copy(conditions = able), once).told).assignment
        assertEquals(expectedWork(), work)

        download(client)
        reports(client)

        assertEquals(TurnedAway("already_reported", "this round has your report", 0.05), away(client, checkIn))
        assertEquals(
            Status("the-device", "tiny", 0, 0, false, 1, emptyList(), ReleasedModel(0, FileEntry(weights, 136))),
            client.status(once),
        )
        client.benchmark(BenchmarkResult("onnx", batchSize = 8, medianS = 0.01, repeats = 5), once)
        evaluations(client, checkIn)
        val next = client.checkIn(checkIn, once)
        assertEquals(5156357587224350314, assertIs<Told.Train>(next.told).assignment.batchSeed)
        assertEquals(1, next.released.version)
        client.forgetMe(once)
        refused(403, "forgotten") { client.status(once) }
        replay.checkOver()
    }

    private fun expectedWork() = Assignment(
        assignmentId = 0,
        round = 0,
        modelVersion = 0,
        deadlineInS = Replay.DEADLINE_IN_S,
        program = "onnx",
        bundle = mapOf(
            "train_step.onnx" to FileEntry("d69ea8cda2433733c1ce02de65da8f48e6a3dbba6bb18876a2062908e54ef7cb", 9),
        ),
        weights = FileEntry(weights, 136),
        broadcast = null,
        algorithm = "fedavg",
        algorithmOptions = emptyMap(),
        hyper = mapOf("learning_rate" to 0.1),
        epochs = 1,
        steps = 0,
        batchSize = 8,
        batchSeed = 2189010849865370787,
        codec = "lossless",
        codecOptions = emptyMap(),
        codecSeed = 6957812293094804711,
        downloadBits = 0,
        updateBytes = 136,
        partialWork = PartialWork.REPORT,
        rule = Rule(),
    )

    private suspend fun download(client: ServiceClient) {
        val entry = FileEntry(weights, 136)
        val disk = FaultyDisk()
        val whole = client.fetch(entry, Downloads(folder.newFolder("a"), folder.newFolder(), disk), once)
        val cut = folder.newFolder("b")
        File(cut, ".$weights.partial").writeBytes(whole.readBytes().copyOf(100))
        val continued = client.fetch(entry, Downloads(cut, folder.newFolder(), disk), once)
        assertContentEquals(whole.readBytes(), continued.readBytes())
        refused(404, "no_file") {
            client.fetch(FileEntry("0".repeat(64), 9), Downloads(folder.newFolder("c"), folder.newFolder(), disk), once)
        }
    }

    private suspend fun reports(client: ServiceClient) {
        val good = bodyOf("report")
        refused(422, "wrong_hash") { report(client, good, said = FileHash.of("other".toByteArray())) }
        refused(422, "wrong_length") { report(client, good.copyOf(good.size - 1)) }
        refused(422, "not_finite") { report(client, bodyOf("report NaN")) }
        refused(422, "wrong_facts") { report(client, good, facts.copy(numExamples = 9)) }
        assertEquals(ReportAnswer("accepted", 0), report(client, good))
        assertEquals(ReportAnswer("repeated", 0), report(client, good))
        refused(409, "other_report") { report(client, bodyOf("report something else")) }
        refused(404, "unknown") { report(client, good, id = 77) }
    }

    private suspend fun report(
        client: ServiceClient,
        body: ByteArray,
        facts: ReportFacts = this.facts,
        said: String = FileHash.of(body),
        id: Long = 0,
    ): ReportAnswer = client.report(id, facts, folder.newFile().apply { writeBytes(body) }, said, once)

    private suspend fun evaluations(client: ServiceClient, checkIn: CheckIn) {
        val work = assertIs<Told.Evaluate>(client.checkIn(checkIn.copy(evaluates = true), once).told).work
        assertEquals(listOf("candidate", "loss", 8), listOf(work.stage, work.metric, work.batchSize))
        assertEquals(listOf(1L, 0L), listOf(work.tried, work.released).map { it.version })
        val found = EvaluationReport(5, 0.5, 1.0)
        refused(422, "wrong_message") { client.evaluation(0, found.copy(numHeldOut = 0), once) }
        refused(404, "unknown") { client.evaluation(77, found, once) }
        assertEquals(EvaluationAnswer("counted"), client.evaluation(0, found, once))
        assertEquals(EvaluationAnswer("repeated"), client.evaluation(0, found, once))
        refused(409, "other_report") { client.evaluation(0, found.copy(tried = 0.25), once) }
    }

    private suspend fun away(client: ServiceClient, checkIn: CheckIn): TurnedAway {
        val answer = client.checkIn(checkIn, once)
        assertEquals(FileEntry(weights, 136), answer.released.weights)
        return assertIs<Told.Away>(answer.told).turnedAway
    }

    /** A refusal comes through as the service says it. */
    private suspend fun refused(status: Int, code: String, call: suspend () -> Any) {
        val exc = assertFailsWith<Refused> { call() }
        assertEquals(status to code, exc.status to exc.code)
    }

    private fun bodyOf(title: String): ByteArray = hex(
        recorded.map { it.getJSONObject("request") }.single { it.getString("title") == title }.getString("hex"),
    )

    private fun client(replay: Replay) =
        ServiceClient(replay.url, UrlConnectionTransport(Dispatchers.IO), Retries(FakeClock(), seed = 1))
}

private fun hex(text: String) = ByteArray(text.length / 2) { text.substring(2 * it, 2 * it + 2).toInt(16).toByte() }

/** Answers as recorded, and holds each request against the recorded one. */
private class Replay(private val exchanges: List<JSONObject>, weights: String) : Closeable {
    private val server = httpServer()
    private val known = mapOf(
        "token" to "the-token",
        "device_id" to "the-device",
        "credential" to "the-credential",
        "weights" to weights,
    )
    private val problems = mutableListOf<String>()
    private var next = 0

    val url = "http://${server.address.hostString}:${server.address.port}/v1/populations/tiny"

    init {
        server.createContext("/") { exchange ->
            try {
                handle(exchange)
            } finally {
                exchange.close()
            }
        }
        server.start()
    }

    override fun close() = server.stop(0)

    fun checkOver() {
        assertEquals(emptyList(), problems)
        assertEquals(exchanges.size, next, "not all was said")
    }

    private fun handle(exchange: HttpExchange) {
        val body = exchange.requestBody.readBytes()
        val recorded = exchanges[next++]
        val request = filled(recorded.getJSONObject("request"))
        val title = request.getString("title")
        fun same(what: String, wanted: Any?, came: Any?) {
            if (wanted != came) problems += "$title: $what must be $wanted, got $came"
        }
        same("the method", request.getString("method"), exchange.requestMethod)
        same("the path", request.getString("path"), exchange.requestURI.path)
        same("the query", plain(request.optJSONObject("query") ?: JSONObject()), query(exchange.requestURI.query))
        val headers = plain(request.getJSONObject("headers")) as Map<*, *>
        for ((name, value) in headers) same("header $name", value, exchange.requestHeaders.getFirst(name.toString()))
        for (name in setOf("Authorization", "Range", "Content-Digest", "If-None-Match") - headers.keys) {
            same("header $name", null, exchange.requestHeaders.getFirst(name.toString()))
        }
        when {
            request.has("json") -> same("the body", plain(request.get("json")), plain(JSONObject(String(body))))
            request.has("hex") -> same("the body", request.getString("hex"), body.joinToString("") { hex(it) })
            else -> same("the body", 0, body.size)
        }
        answer(exchange, filled(recorded.getJSONObject("answer")))
    }

    private fun answer(exchange: HttpExchange, answer: JSONObject) {
        for ((name, value) in plain(answer.getJSONObject("headers")) as Map<*, *>) {
            exchange.responseHeaders.set(name.toString(), value.toString())
        }
        val body = when {
            answer.has("json") -> answer.getJSONObject("json").toString().toByteArray()
            answer.has("hex") -> hex(answer.getString("hex"))
            else -> ByteArray(0)
        }
        exchange.sendResponseHeaders(answer.getInt("status"), if (body.isEmpty()) -1 else body.size.toLong())
        if (body.isNotEmpty()) exchange.responseBody.write(body)
    }

    private fun filled(json: JSONObject): JSONObject {
        val text = known.entries.fold(json.toString()) { text, (name, value) -> text.replace("$$name", value) }
        return JSONObject(text.replace("\"\$deadline_in_s\"", DEADLINE_IN_S.toString()))
    }

    private fun query(text: String?): Map<String, Any?> =
        text?.split('&')?.associate { it.substringBefore('=') to it.substringAfter('=') }.orEmpty()

    /** JSON as Kotlin compares it. */
    private fun plain(value: Any?): Any? = when (value) {
        is JSONObject -> value.keys().asSequence().associate { it.toString() to plain(value.get(it.toString())) }
        is JSONArray -> List(value.length()) { plain(value.get(it)) }
        is Number -> value.toDouble()
        else -> value
    }

    private fun hex(byte: Byte) = (byte.toInt() and 0xff).toString(16).padStart(2, '0')

    companion object {
        const val DEADLINE_IN_S = 60.5
    }
}
