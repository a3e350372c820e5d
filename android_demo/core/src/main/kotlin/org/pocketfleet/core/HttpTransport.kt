package org.pocketfleet.core

import java.io.File
import java.io.InputStream

/** What is sent along with a request; its length is known before, and it can be sent again. */
interface HttpBody {
    val bytes: Long

    /** Whether it is sent piece by piece, as what is too large for memory must be. */
    val isStreamed: Boolean

    fun open(): InputStream
}

/** One request, to an absolute [url]. */
class HttpRequest(val method: String, val url: String, val headers: Map<String, String>, val body: HttpBody? = null)

/** An answer whose body is still on its way. */
interface HttpAnswer {
    val status: Int

    /** The value of a header, whatever its case; null: it has none of that name. */
    fun header(name: String): String?

    /**
     * The next bytes of the body, 1 or more; -1: that was all of it.
     *
     * @throws java.io.IOException the connection broke before the body's end.
     */
    suspend fun read(into: ByteArray): Int
}

/** One request and its answer, with no memory and no second try: what a client asks through. */
interface HttpTransport {
    /**
     * Ask, and look at the answer with [read] while its connection is open.
     *
     * Redirects are answers like others. A caller that is cancelled is let go at once, and the connection given up.
     *
     * @throws java.io.IOException nobody answered, or the connection broke.
     */
    suspend fun <T> exchange(request: HttpRequest, read: suspend (HttpAnswer) -> T): T
}

/** A body in memory. */
class BytesBody(private val content: ByteArray) : HttpBody {
    override val bytes: Long get() = content.size.toLong()

    override val isStreamed: Boolean get() = false

    override fun open(): InputStream = content.inputStream()
}

/** A body that is a file. */
class FileBody(private val file: File) : HttpBody {
    override val bytes: Long = file.length()

    override val isStreamed: Boolean get() = true

    override fun open(): InputStream = file.inputStream()
}
