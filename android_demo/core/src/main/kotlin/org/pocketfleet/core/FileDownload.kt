package org.pocketfleet.core

import java.io.File
import java.io.IOException
import java.net.HttpURLConnection
import kotlin.math.min

/**
 * One file brought here, over as many connections as it takes.
 *
 * What a connection brought before it broke is kept and continued by a range request, across restarts of the app too.
 */
internal class FileDownload(
    private val http: HttpTransport,
    private val retries: Retries,
    private val entry: FileEntry,
    private val partial: PartialFile,
) {
    private var beginnings = 0

    /**
     * The file under its own name.
     *
     * @throws Refused the service does not give it.
     * @throws Unreachable the patience came to its end; what came is kept.
     * @throws FormatException what comes has another hash or length, again and again.
     * @throws StorageException what comes cannot be kept.
     */
    suspend fun fetched(request: HttpRequest, patience: Patience): File {
        repeat(MOST_DAMAGED) {
            complete(request, patience)
            partial.finished()?.let { return it }
        }
        throw FormatException(
            "the service gives ${entry.sha256} with other bytes than that hash's, $MOST_DAMAGED times in a row: " +
                "something between here and there alters them",
        )
    }

    private suspend fun complete(request: HttpRequest, patience: Patience) {
        var failures = 0
        // A file of no bytes is asked for as well: it is there once somebody gave it.
        if (partial.bytes > entry.bytes) partial.clear()
        while (partial.bytes < entry.bytes || entry.bytes == 0L) {
            val held = partial.bytes
            var cause: IOException? = null
            val waitS = try {
                continued(request, held)
            } catch (exc: IOException) {
                cause = exc
                null
            }
            if (partial.bytes >= entry.bytes && cause == null) return
            // A connection that brought something was worth it: no reason to wait before the next.
            val isGrown = partial.bytes > held
            failures = if (isGrown) 0 else failures + 1
            if (isGrown) retries.pause(0.0, 0, patience, cause) else retries.pause(waitS, failures, patience, cause)
        }
    }

    /** One request for the rest; returns the seconds to wait before the next, null for a back-off. */
    private suspend fun continued(request: HttpRequest, held: Long): Double? {
        val headers = if (held > 0) request.headers + ("Range" to "bytes=$held-") else request.headers
        return http.exchange(HttpRequest(request.method, request.url, headers)) { answer ->
            when (answer.status) {
                HttpURLConnection.HTTP_OK -> {
                    partial.clear()
                    write(answer, 0)
                }
                HttpURLConnection.HTTP_PARTIAL -> {
                    checkRange(answer, held)
                    write(answer, held)
                }
                RANGE_NOT_SATISFIABLE -> null.also { beginAnew() }
                else -> answer.waitOrRefuse()
            }
        }
    }

    private suspend fun write(answer: HttpAnswer, from: Long): Double? {
        val piece = ByteArray(PIECE_BYTES)
        var held = from
        partial.append().use { file ->
            while (true) {
                val count = answer.read(piece)
                if (count < 0) break
                val wanted = min(count.toLong(), entry.bytes - held).toInt()
                onStorage("cannot write a download") { file.write(piece, 0, wanted) }
                held += count
                // More than the file has: its hash will tell.
                if (held > entry.bytes) break
            }
            onStorage("cannot write a download") { file.sync() }
        }
        return null
    }

    /** The service's file ends before what is held of it, or what is held is of another. */
    private fun beginAnew() {
        partial.clear()
        beginnings += 1
        if (beginnings > MOST_DAMAGED) throw FormatException("the service gives ${entry.sha256} shorter than it says")
    }

    private fun checkRange(answer: HttpAnswer, held: Long) {
        val range = answer.header("Content-Range")
        if (range == null || !range.startsWith("bytes $held-")) {
            throw FormatException("asked for the bytes from $held on of ${entry.sha256}, the service answered $range")
        }
    }

    private companion object {
        const val PIECE_BYTES = 64 * 1024
        const val RANGE_NOT_SATISFIABLE = 416

        // So often a file may come damaged before the device stops asking.
        const val MOST_DAMAGED = 3
    }
}
