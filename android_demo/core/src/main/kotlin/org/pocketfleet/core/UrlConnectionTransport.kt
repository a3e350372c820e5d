package org.pocketfleet.core

import java.io.IOException
import java.io.InputStream
import java.net.HttpRetryException
import java.net.HttpURLConnection
import java.net.URL
import java.util.concurrent.Executor
import kotlin.concurrent.thread
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.asExecutor
import kotlinx.coroutines.suspendCancellableCoroutine

/**
 * The transport over the platform's own [HttpURLConnection]: TLS for https addresses, by the system's trust.
 *
 * An http address sends credentials and models for all to read. Android refuses one by itself since API 28, unless the
 * app's network security configuration allows it for that host; meant for a machine on one's own desk.
 *
 * @param dispatcher whose threads wait for the network; a request takes one at a time.
 * @param connectTimeoutS nobody is there that does not answer within so long.
 * @param readTimeoutS likewise, of a connection that brings nothing.
 */
class UrlConnectionTransport(
    dispatcher: CoroutineDispatcher,
    private val connectTimeoutS: Int = 15,
    private val readTimeoutS: Int = 30,
) : HttpTransport {
    private val executor = dispatcher.asExecutor()

    override suspend fun <T> exchange(request: HttpRequest, read: suspend (HttpAnswer) -> T): T {
        val connection = URL(request.url).openConnection() as? HttpURLConnection
            ?: throw IOException("${request.url} is no address of HTTP")
        var answer: UrlConnectionAnswer? = null
        try {
            answer = blocking(executor, connection) { asked(connection, request) }
            return read(answer)
        } finally {
            if (answer == null || !answer.isDone) closeApart(connection)
        }
    }

    private fun asked(connection: HttpURLConnection, request: HttpRequest): UrlConnectionAnswer {
        connection.requestMethod = request.method
        connection.instanceFollowRedirects = false
        connection.useCaches = false
        connection.connectTimeout = connectTimeoutS * MILLIS
        connection.readTimeout = readTimeoutS * MILLIS
        for ((name, value) in request.headers) connection.setRequestProperty(name, value)
        request.body?.let { send(connection, it) }
        val status = try {
            connection.responseCode
        } catch (exc: HttpRetryException) {
            // The platform's answer to a 401 where it cannot send a streamed body again; what else was said is lost.
            return UrlConnectionAnswer(connection, executor, exc.responseCode(), null)
        }
        if (status < 0) throw IOException("${request.url} does not answer in HTTP")
        val isError = status >= HttpURLConnection.HTTP_BAD_REQUEST
        val stream = if (isError) connection.errorStream else connection.inputStream
        return UrlConnectionAnswer(connection, executor, status, stream)
    }

    private fun send(connection: HttpURLConnection, body: HttpBody) {
        connection.doOutput = true
        if (body.isStreamed) connection.setFixedLengthStreamingMode(body.bytes)
        body.open().use { content -> connection.outputStream.use { content.copyTo(it, PIECE_BYTES) } }
    }

    private companion object {
        const val MILLIS = 1000
        const val PIECE_BYTES = 64 * 1024
    }
}

/** [isDone] tells that nothing is left to come: the connection may serve again. */
private class UrlConnectionAnswer(
    private val connection: HttpURLConnection,
    private val executor: Executor,
    override val status: Int,
    private val stream: InputStream?,
) : HttpAnswer {
    // The platform takes a connection that ends early for the end of the body.
    private var left = if (stream == null) 0L else header("Content-Length")?.trim()?.toLongOrNull() ?: UNKNOWN

    var isDone = false
        private set

    override fun header(name: String): String? = connection.getHeaderField(name)

    override suspend fun read(into: ByteArray): Int {
        if (stream == null || left == 0L || isDone) return finish()
        val count = blocking(executor, connection) { stream.read(into) }
        if (count < 0) {
            if (left > 0) throw IOException("the connection broke $left bytes before the end")
            return finish()
        }
        if (left > 0) {
            left -= count
            if (left == 0L) finish()
        }
        return count
    }

    private fun finish(): Int {
        isDone = true
        stream?.close()
        return -1
    }

    private companion object {
        const val UNKNOWN = -1L
    }
}

/**
 * A call that blocks on [connection], on a thread of its own; whoever is cancelled does not wait for it to return.
 *
 * Closing wakes a thread that sends or waits for an answer. One that waits for more of a body is woken on Android; the
 * JDK's streams cannot be closed while they read, there it ends with the read timeout, and what it brings is nobody's.
 */
private suspend fun <T> blocking(executor: Executor, connection: HttpURLConnection, call: () -> T): T =
    suspendCancellableCoroutine { continuation ->
        continuation.invokeOnCancellation { closeApart(connection) }
        executor.execute { continuation.resumeWith(runCatching(call)) }
    }

private fun closeApart(connection: HttpURLConnection) {
    thread(isDaemon = true, name = "close-connection") { connection.disconnect() }
}
