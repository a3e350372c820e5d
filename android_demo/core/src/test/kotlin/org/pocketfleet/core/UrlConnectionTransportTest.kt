package org.pocketfleet.core

import java.io.Closeable
import java.io.File
import java.io.IOException
import java.io.RandomAccessFile
import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket
import kotlin.concurrent.thread
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import org.junit.Rule as JUnitRule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** The platform's HTTP against a peer that speaks byte by byte. */
class UrlConnectionTransportTest {
    @get:JUnitRule
    val folder = TemporaryFolder()

    /** Hands each connection to [serve]. */
    private class RawServer(private val serve: (Socket) -> Unit) : Closeable {
        private val socket = ServerSocket(0, 50, InetAddress.getLoopbackAddress())
        val url = "http://127.0.0.1:${socket.localPort}/x"

        init {
            thread(isDaemon = true) {
                while (!socket.isClosed) {
                    val connection = try {
                        socket.accept()
                    } catch (_: IOException) {
                        return@thread
                    }
                    thread(isDaemon = true) { connection.use(serve) }
                }
            }
        }

        override fun close() = socket.close()
    }

    private val transport = UrlConnectionTransport(Dispatchers.IO, connectTimeoutS = 2, readTimeoutS = 2)

    private fun text(url: String, body: HttpBody? = null): Pair<Int, String> = runBlocking {
        transport.exchange(request(url, body)) { it.status to it.text() }
    }

    private fun request(url: String, body: HttpBody?) =
        HttpRequest(if (body == null) "GET" else "PUT", url, emptyMap(), body)

    private fun Socket.skipHeaders() {
        val found = StringBuilder()
        while (!found.endsWith("\r\n\r\n")) found.append(getInputStream().read().toChar())
    }

    private fun Socket.say(text: String) = getOutputStream().apply { write(text.toByteArray()) }.flush()

    private fun answering(answer: String, call: (RawServer) -> Unit) =
        RawServer { it.skipHeaders(); it.say(answer) }.use(call)

    @Test
    fun `a body of known length, one in chunks, one that ends with its connection, and none`() {
        answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") { assertEquals(200 to "hello", text(it.url)) }
        answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n") {
            assertEquals(200 to "hello", text(it.url))
        }
        answering("HTTP/1.0 200 OK\r\n\r\nhello") { assertEquals(200 to "hello", text(it.url)) }
        answering("HTTP/1.1 204 No Content\r\n\r\n") { assertEquals(204 to "", text(it.url)) }
        answering("HTTP/1.1 304 Not Modified\r\n\r\n") { assertEquals(304 to "", text(it.url)) }
        answering("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n") {
            assertEquals(302 to "", text(it.url), "a redirect was followed")
        }
        answering("HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno") { assertEquals(409 to "no", text(it.url)) }
    }

    @Test
    fun `a body that ends early is a broken connection, not a short body`() {
        answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello") { server ->
            val exc = assertFailsWith<IOException> { text(server.url) }
            assertEquals("the connection broke 4 bytes before the end", exc.message)
        }
        answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel") { server ->
            assertFailsWith<IOException> { text(server.url) }
        }
    }

    @Test
    fun `who does not speak HTTP, does not answer, or is not there is an IOException`() {
        answering("SSH-2.0-OpenSSH\r\n") { server -> assertFailsWith<IOException> { text(server.url) } }
        answering("") { server -> assertFailsWith<IOException> { text(server.url) } }
        RawServer { it.getInputStream().readBytes() }.use { silent ->
            assertFailsWith<IOException> { text(silent.url) }
        }
        val gone = RawServer { }.apply { close() }
        assertFailsWith<IOException> { text(gone.url) }
        assertFailsWith<IOException> { text("file:///etc/hostname") }
    }

    @Test
    fun `a file is sent with its length, piece by piece`() {
        val file = folder.newFile().apply { writeBytes(ByteArray(300_000) { it.toByte() }) }
        var length = ""
        var sum = 0L
        RawServer { socket ->
            val reader = socket.getInputStream()
            val head = StringBuilder()
            while (!head.endsWith("\r\n\r\n")) head.append(reader.read().toChar())
            length = head.lines().single { it.startsWith("Content-Length") }
            repeat(300_000) { sum += reader.read() }
            socket.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        }.use { server -> assertEquals(200, text(server.url, FileBody(file)).first) }
        assertEquals("Content-Length: 300000", length)
        assertEquals(file.readBytes().sumOf { it.toLong() and 0xff }, sum)
    }

    @Test
    fun `a 401 to a file comes without its words`() = RawServer { socket ->
        socket.skipHeaders()
        repeat(10) { socket.getInputStream().read() }
        socket.say("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 2\r\n\r\nno")
    }.use { server ->
        val file = folder.newFile().apply { writeBytes(ByteArray(10)) }
        assertEquals(401 to "", text(server.url, FileBody(file)))
        assertEquals(401 to "no", text(server.url, BytesBody(ByteArray(10))))
    }

    /** Cancel while the peer waits at a moment of its choice; returns the seconds that it took. */
    private fun cancelled(body: HttpBody? = null, serve: (Socket, CompletableDeferred<Unit>) -> Unit): Double {
        val reached = CompletableDeferred<Unit>()
        return RawServer { serve(it, reached) }.use { server ->
            runBlocking {
                val asking = async(Dispatchers.Default) {
                    transport.exchange(request(server.url, body)) { it.text() }
                }
                reached.await()
                // So that whoever asks is back at its waiting.
                Thread.sleep(100)
                val began = System.nanoTime()
                asking.cancelAndJoin()
                (System.nanoTime() - began) / 1e9
            }
        }
    }

    @Test
    fun `who is cancelled waits for nobody, and the connection is closed`() {
        val closed = CompletableDeferred<Unit>()
        val answering = cancelled { socket, reached ->
            socket.skipHeaders()
            reached.complete(Unit)
            // Ends when the other side closes.
            socket.getInputStream().read()
            closed.complete(Unit)
        }
        val middle = cancelled { socket, reached ->
            socket.skipHeaders()
            socket.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
            reached.complete(Unit)
            socket.getInputStream().read()
        }
        // More than the buffers of both sides hold.
        val large = File(folder.root, "large")
        RandomAccessFile(large, "rw").use { it.setLength(64L shl 20) }
        val sending = cancelled(FileBody(large)) { socket, reached ->
            socket.skipHeaders()
            reached.complete(Unit)
            Thread.sleep(1500)
        }
        // The transport's timeout is 2 s: none of the three waited for it.
        assertTrue(listOf(answering, middle, sending).all { it < 1.0 }, "$answering, $middle, $sending s")
        runBlocking { withTimeout(1000) { closed.await() } }
    }
}
