package org.pocketfleet.core

import java.io.File
import java.io.IOException
import java.net.HttpURLConnection
import java.net.URI
import java.net.URISyntaxException
import java.net.URLEncoder
import java.util.Base64
import org.json.JSONObject

/** The service answered, and does not do it; [code] is for programs. */
class Refused(val status: Int, val code: String, message: String, cause: Throwable? = null) :
    PocketfleetException("$message ($status $code)", cause)

/** Nobody answered in time. */
class Unreachable(message: String, cause: Throwable?) : PocketfleetException(message, cause)

/**
 * One device's side of a population's service: protocol version 1 over HTTP, and how often it is said.
 *
 * A connection that fails and an answer of 500 and above are tried again, as [Retries] says; 429 and 503 after the
 * seconds that they ask for. Trying ends with a [Patience]: [Unreachable]. A refusal is final: [Refused]. An answer
 * that is none of the protocol is a [FormatException].
 *
 * @param url of the population, as the service prints it; https, or the credential is for all to read.
 * @param credential of the device, once it is enrolled.
 */
class ServiceClient(
    url: String,
    private val http: HttpTransport,
    private val retries: Retries,
    var credential: String = "",
) {
    /** Of the population, checked. */
    val url: String = checkedUrl(url)

    /** Turn a token into a credential, which the caller keeps before anything else. */
    suspend fun enrol(enrolment: Enrolment, patience: Patience): Enrolled =
        asked("POST", "enrol", enrolment.toJson(), patience, Enrolled::of)

    /** Ask for work. Whoever holds an assignment of the open round loses it by that. */
    suspend fun checkIn(checkIn: CheckIn, patience: Patience): CheckInAnswer =
        asked("POST", "check-in", checkIn.toJson(), patience, CheckInAnswer::of)

    /** What the service knows of this device. */
    suspend fun status(patience: Patience): Status = asked("GET", "status", null, patience, Status::of)

    /** Send an update, whose bytes have the SHA-256 [sha256]; sent again, it is the same report. */
    suspend fun report(
        assignmentId: Long,
        facts: ReportFacts,
        update: File,
        sha256: String,
        patience: Patience,
    ): ReportAnswer {
        // RFC 9530: the digest is a byte sequence of RFC 8941 (section 3.3.5), base64 between colons.
        val digest = Base64.getEncoder().encodeToString(bytesOf(sha256))
        val headers = mapOf("Content-Type" to BYTES, "Content-Digest" to "sha-256=:$digest:")
        val query = facts.toQuery().entries.joinToString("&") { "${it.key}=${URLEncoder.encode(it.value, "UTF-8")}" }
        val answer = request("PUT", "reports/$assignmentId?$query", headers, FileBody(update), patience)
        return message(answer, "the answer to PUT reports/$assignmentId", ReportAnswer::of)
    }

    /** Send an evaluation; sent again, it is the same one. */
    suspend fun evaluation(evaluationId: Long, report: EvaluationReport, patience: Patience): EvaluationAnswer =
        asked("PUT", "evaluations/$evaluationId", report.toJson(), patience, EvaluationAnswer::of)

    /** Tell what a step took here. */
    suspend fun benchmark(result: BenchmarkResult, patience: Patience) {
        request("POST", "benchmarks", JSON, BytesBody(result.toJson().toString().toByteArray()), patience)
    }

    /** Tell that the user wants a rest; the device comes no more until it [resume]s. */
    suspend fun pause(patience: Patience) {
        request("POST", "pause", emptyMap(), BytesBody(ByteArray(0)), patience)
    }

    /** The rest is over. */
    suspend fun resume(patience: Patience) {
        request("POST", "resume", emptyMap(), BytesBody(ByteArray(0)), patience)
    }

    /** Give up what this device was asked for; it takes part no more, what it reported stays counted. */
    suspend fun leave(patience: Patience) {
        request("POST", "leave", emptyMap(), BytesBody(ByteArray(0)), patience)
    }

    /** Likewise, and what the device said of itself is deleted there. */
    suspend fun forgetMe(patience: Patience) {
        request("DELETE", "device", emptyMap(), null, patience)
    }

    /**
     * The file of [entry], from [folder] if it is there, or else brought into it.
     *
     * @throws FormatException what comes has another hash, again and again.
     */
    suspend fun fetch(entry: FileEntry, folder: Downloads, patience: Patience): File =
        folder.held(entry) ?: FileDownload(http, retries, entry, folder.partial(entry)).fetched(
            HttpRequest("GET", "$url/files/${entry.sha256}", headers()),
            patience,
        )

    private suspend fun <T> asked(
        method: String,
        path: String,
        body: JSONObject?,
        patience: Patience,
        read: (CheckedJson) -> T,
    ): T {
        val content = body?.let { BytesBody(it.toString().toByteArray()) }
        val answer = request(method, path, if (body == null) emptyMap() else JSON, content, patience)
        return message(answer, "the answer to $method $path", read)
    }

    private suspend fun request(
        method: String,
        path: String,
        headers: Map<String, String>,
        body: HttpBody?,
        patience: Patience,
    ): String {
        val request = HttpRequest(method, "$url/$path", headers() + headers, body)
        var failures = 0
        while (true) {
            var cause: IOException? = null
            val tried = try {
                http.exchange(request) { answer -> answered(answer) }
            } catch (exc: IOException) {
                cause = exc
                Tried.Again(null)
            }
            when (tried) {
                is Tried.Done -> return tried.text
                is Tried.Again -> retries.pause(tried.waitS, ++failures, patience, cause)
            }
        }
    }

    private fun headers(): Map<String, String> {
        // Files are named by the hash of what is sent: nothing is to be compressed on the way.
        val known = mapOf("Accept-Encoding" to "identity")
        return if (credential.isEmpty()) known else known + ("Authorization" to "Bearer $credential")
    }

    private sealed interface Tried {
        class Done(val text: String) : Tried

        class Again(val waitS: Double?) : Tried
    }

    private suspend fun answered(answer: HttpAnswer): Tried {
        val isSuccess = answer.status < HttpURLConnection.HTTP_MULT_CHOICE
        return if (isSuccess) Tried.Done(answer.text()) else Tried.Again(answer.waitOrRefuse())
    }

    private fun bytesOf(hexadecimal: String) =
        ByteArray(hexadecimal.length / 2) { hexadecimal.substring(2 * it, 2 * it + 2).toInt(16).toByte() }

    private companion object {
        const val BYTES = "application/octet-stream"
        val JSON = mapOf("Content-Type" to "application/json")

        fun checkedUrl(url: String): String {
            val wanted = "the URL must be the one that the service prints, such as https://host/v1/populations/boston"
            val found = try {
                URI(url)
            } catch (exc: URISyntaxException) {
                throw FormatException("$wanted, got \"$url\": ${exc.message}", exc)
            }
            val parts = found.path.orEmpty().trim('/').split('/')
            val isPopulation = parts.size == 3 && parts[0] == "v1" && parts[1] == "populations"
            if (found.scheme !in setOf("http", "https") || found.host == null || !isPopulation) {
                throw FormatException("$wanted, got \"$url\"")
            }
            return url.trimEnd('/')
        }
    }
}

// What a message of the protocol has at most, many times over.
private const val MOST_TEXT_BYTES = 1 shl 20

/** The whole body, as text. */
internal suspend fun HttpAnswer.text(): String {
    val found = java.io.ByteArrayOutputStream()
    val piece = ByteArray(8192)
    while (true) {
        val count = read(piece)
        if (count < 0) return found.toString("UTF-8")
        found.write(piece, 0, count)
        if (found.size() > MOST_TEXT_BYTES) {
            throw FormatException("an answer of more than $MOST_TEXT_BYTES bytes is none of the protocol")
        }
    }
}

/**
 * Seconds until the next try after an answer that is no success; null: a back-off.
 *
 * @throws Refused there is no next try.
 */
internal suspend fun HttpAnswer.waitOrRefuse(): Double? {
    val text = text()
    if (status == TOO_MANY_REQUESTS || status == HttpURLConnection.HTTP_UNAVAILABLE) {
        return header("Retry-After")?.trim()?.toDoubleOrNull()?.takeIf { it.isFinite() }?.coerceAtLeast(0.0)
    }
    if (status >= HttpURLConnection.HTTP_INTERNAL_ERROR) return null
    val error = try {
        message(text, "the refusal", ErrorAnswer::of)
    } catch (exc: FormatException) {
        // A proxy between, no pocketfleet service at all, or an answer that the platform keeps to itself.
        throw Refused(status, "unknown", "the service answers without saying why", exc)
    }
    throw Refused(status, error.code, error.message)
}

private const val TOO_MANY_REQUESTS = 429
