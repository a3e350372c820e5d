package org.pocketfleet.core

import java.io.File
import java.io.FileInputStream
import java.security.MessageDigest

/** SHA-256, as lower-case hexadecimal. */
object FileHash {
    private const val PIECE_BYTES = 64 * 1024
    private const val HEXADECIMAL = "0123456789abcdef"

    /** Of a file, read piece by piece. */
    fun of(file: File): String = FileInputStream(file).use { input ->
        val digest = MessageDigest.getInstance("SHA-256")
        val piece = ByteArray(PIECE_BYTES)
        while (true) {
            val read = input.read(piece)
            if (read < 0) break
            digest.update(piece, 0, read)
        }
        hexadecimal(digest.digest())
    }

    fun of(bytes: ByteArray): String = hexadecimal(MessageDigest.getInstance("SHA-256").digest(bytes))

    /** For whoever hashes what it receives. */
    fun hexadecimal(bytes: ByteArray): String = bytes.fold(StringBuilder()) { text, byte ->
        text.append(HEXADECIMAL[(byte.toInt() shr 4) and 0xf]).append(HEXADECIMAL[byte.toInt() and 0xf])
    }.toString()
}
