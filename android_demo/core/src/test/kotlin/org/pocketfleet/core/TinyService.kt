package org.pocketfleet.core

import com.sun.net.httpserver.HttpExchange
import com.sun.net.httpserver.HttpServer
import java.io.Closeable
import java.net.InetAddress
import java.net.InetSocketAddress
import java.util.Base64
import java.util.concurrent.Executors
import org.json.JSONArray
import org.json.JSONObject

/**
 * A service of one device over real HTTP, with the rules that count: an assignment is lost by the next check-in, a
 * report counts once, the same bytes again are repeated.
 *
 * @param model whose bundle is handed out.
 * @param terms change an assignment before it is given.
 */
class TinyService(val model: LinearModel = LinearModel(), private val terms: (JSONObject) -> Unit = {}) : Closeable {
    private val threads = Executors.newCachedThreadPool()
    private val server = httpServer()

    /** Of version 0. */
    val weights: ByteArray = LinearModel.bytes(LinearModel.weights(0.5f, -0.5f))

    /** Files by hash; a test may put other bytes behind a hash. */
    val files = (model.files.values + weights).associateBy { FileHash.of(it) }.toMutableMap()

    /** Requests that came, as `METHOD path`. */
    val requests: MutableList<String> = java.util.Collections.synchronizedList(mutableListOf())

    /** The bytes of the reports that count, by assignment. */
    val counted = sortedMapOf<Long, ByteArray>()

    /** The facts of the reports that count, by assignment. */
    val facts = sortedMapOf<Long, Map<String, String>>()

    /** Bodies of the evaluations that came. */
    val evaluations = mutableListOf<JSONObject>()

    /** Handles a request in place of the service where it returns true; it is given the request's `METHOD path`. */
    @Volatile
    var fault: (String, HttpExchange) -> Boolean = { _, _ -> false }

    /** What check-ins are told; null: work. */
    @Volatile
    var turnedAway: JSONObject? = null

    /** Whether check-ins are asked to evaluate. */
    @Volatile
    var evaluates = false

    /** Whether the device is unknown. */
    @Volatile
    var isRevoked = false

    @Volatile
    var openAssignment = -1L
    private var assignments = 0L

    init {
        server.executor = threads
        server.createContext("/") { exchange -> exchange.use(::handle) }
        server.start()
    }

    val url: String get() = "http://${server.address.hostString}:${server.address.port}$BASE"

    override fun close() {
        server.stop(0)
        threads.shutdownNow()
    }

    private fun handle(exchange: HttpExchange) {
        val path = exchange.requestURI.path.removePrefix("$BASE/")
        val request = "${exchange.requestMethod} $path"
        requests += request
        if (fault(request, exchange)) return
        val body = exchange.requestBody.readBytes()
        when {
            request == "POST enrol" ->
                exchange.answer(201, JSONObject().put("device_id", "d").put("credential", CREDENTIAL))
            exchange.requestHeaders.getFirst("Authorization") != "Bearer $CREDENTIAL" || isRevoked ->
                exchange.refuse(401, "wrong_credential")
            request == "POST check-in" -> checkIn(exchange)
            request == "GET status" -> exchange.answer(200, status())
            path.startsWith("files/") -> file(exchange, path.removePrefix("files/"))
            path.startsWith("reports/") -> report(exchange, path.removePrefix("reports/").toLong(), body)
            path.startsWith("evaluations/") -> {
                evaluations += JSONObject(String(body))
                exchange.answer(200, JSONObject().put("code", "counted"))
            }
            else -> exchange.sendResponseHeaders(204, -1)
        }
    }

    @Synchronized
    private fun checkIn(exchange: HttpExchange) {
        val answer = JSONObject().put("released", model(weights))
        turnedAway?.let { return exchange.answer(200, answer.put("turned_away", it)) }
        if (evaluates) return exchange.answer(200, answer.put("evaluation", evaluation()))
        if (counted.isNotEmpty()) {
            val away = JSONObject().put("reason", "already_reported").put("message", "it has it")
            return exchange.answer(200, answer.put("turned_away", away.put("retry_after_s", 60)))
        }
        openAssignment = assignments++
        exchange.answer(200, answer.put("assignment", assignment(openAssignment)))
    }

    private fun assignment(id: Long): JSONObject = work()
        .put("work", "train").put("assignment_id", id).put("round", 3).put("model_version", 0)
        .put("weights", LinearModel.entry(weights).toJson()).put("broadcast", JSONObject.NULL)
        .put("algorithm", "fedavg").put("algorithm_options", JSONObject())
        .put("hyper", JSONObject().put("learning_rate", 0.1)).put("epochs", 2).put("steps", 0)
        .put("batch_seed", Long.MAX_VALUE).put("codec", "lossless").put("codec_options", JSONObject())
        .put("codec_seed", (1L shl 53) + 1).put("download_bits", 0).put("update_bytes", weights.size)
        .put("partial_work", "report")
        .also(terms)

    private fun evaluation(): JSONObject = work()
        .put("work", "evaluate").put("evaluation_id", 5).put("stage", "candidate")
        .put("tried", model(weights)).put("released", model(model.files.getValue(Manifest.WEIGHTS_FILE)))
        .put("metric", "absolute_error")

    private fun work() = JSONObject()
        .put("deadline_in_s", 600).put("program", "executorch").put("batch_size", 4).put("from_the_future", true)
        .put("bundle", JSONObject(model.files.mapValues { LinearModel.entry(it.value).toJson() }))
        .put("rule", Rule().toJson())

    private fun model(weights: ByteArray) =
        JSONObject().put("version", 0).put("weights", LinearModel.entry(weights).toJson())

    private fun status() = JSONObject()
        .put("device_id", "d").put("population", "tiny").put("round", 3).put("model_version", 0).put("paused", false)
        .put("reports_accepted", counted.size)
        .put("open_assignments", JSONArray(listOf(openAssignment).filter { it >= 0 }))
        .put("released", model(weights))

    private fun file(exchange: HttpExchange, sha256: String) {
        val content = files[sha256] ?: return exchange.refuse(404, "no_file")
        val from = exchange.requestHeaders.getFirst("Range")?.removePrefix("bytes=")?.removeSuffix("-")?.toInt() ?: 0
        if (from >= content.size && from > 0) return exchange.refuse(416, "no_range")
        if (from > 0) exchange.responseHeaders.set("Content-Range", "bytes $from-${content.size - 1}/${content.size}")
        exchange.sendResponseHeaders(if (from > 0) 206 else 200, (content.size - from).toLong())
        exchange.responseBody.write(content, from, content.size - from)
    }

    @Synchronized
    private fun report(exchange: HttpExchange, id: Long, body: ByteArray) {
        val digest = Base64.getEncoder().encodeToString(java.security.MessageDigest.getInstance("SHA-256").digest(body))
        val said = exchange.requestHeaders.getFirst("Content-Digest")
        val before = counted[id]
        when {
            said != "sha-256=:$digest:" -> exchange.refuse(422, "wrong_hash")
            before != null && before.contentEquals(body) -> exchange.accept("repeated")
            before != null -> exchange.refuse(409, "other_report")
            id != openAssignment -> exchange.refuse(409, "late")
            else -> {
                openAssignment = -1
                counted[id] = body
                val said = exchange.requestURI.query.split('&')
                facts[id] = said.associate { it.substringBefore('=') to it.substringAfter('=') }
                exchange.accept("accepted")
            }
        }
    }

    private fun HttpExchange.accept(code: String) = answer(200, JSONObject().put("code", code).put("round", 3))

    companion object {
        const val CREDENTIAL = "secret"
        const val BASE = "/v1/populations/tiny"

        /** Terms of reports in another codec than `lossless`. */
        fun coded(name: String, options: Map<String, Any>): (JSONObject) -> Unit = { assignment ->
            val weights = LinearModel.weights(0f, 0f)
            val kinds = CodecByName.of(name, options).kinds(Update(weights - "seen", weights - "w"))
            assignment.put("codec", name).put("codec_options", JSONObject(options))
                .put("update_bytes", SafeTensors.size(kinds))
        }
    }
}

/** A server on a free port of this machine alone. */
fun httpServer(): HttpServer {
    // It sends headers and body apart; together with delayed acknowledgements each answer would take 40 ms.
    System.setProperty("sun.net.httpserver.nodelay", "true")
    return HttpServer.create(InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0)
}

fun HttpExchange.answer(status: Int, json: JSONObject) {
    val body = json.toString().toByteArray()
    responseHeaders.set("Content-Type", "application/json")
    sendResponseHeaders(status, body.size.toLong())
    responseBody.write(body)
}

fun HttpExchange.refuse(status: Int, code: String, retryAfterS: Int? = null) {
    if (status == 401) responseHeaders.set("WWW-Authenticate", "Bearer")
    retryAfterS?.let { responseHeaders.set("Retry-After", it.toString()) }
    answer(status, JSONObject().put("error", JSONObject().put("code", code).put("message", "because of $code")))
}

private inline fun HttpExchange.use(call: (HttpExchange) -> Unit) =
    try {
        call(this)
    } finally {
        close()
    }
