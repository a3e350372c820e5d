package org.pocketfleet.core

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.OutputStream
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.StandardCopyOption
import java.nio.file.StandardOpenOption

/** Files could not be written or read; [isFull] tells that room is what is missing. */
class StorageException(message: String, cause: IOException) : PocketfleetException(message, cause) {
    val isFull: Boolean = generateSequence<Throwable>(cause) { it.cause }.any { exc ->
        FULL.any { it in exc.message.orEmpty() }
    }

    private companion object {
        // ENOSPC and EDQUOT as the JDK's and Android's messages have them.
        val FULL = listOf("No space left on device", "ENOSPC", "Disk quota exceeded", "EDQUOT")
    }
}

/** A file that is being written. */
abstract class DiskFile : OutputStream() {
    /** Returns once everything written is on the storage itself. */
    abstract fun sync()
}

/** Everything that changes files: the store's one way to the storage. */
interface Disk {
    /** An empty file to write, in place of any that is there. */
    fun create(file: File): DiskFile

    /** A file to go on writing at its end. */
    fun append(file: File): DiskFile

    /** A file or folder gets another name in the same file system, at one moment; a file there is replaced. */
    fun move(from: File, to: File)

    /** The same bytes under a second name. */
    fun copy(from: File, to: File)

    fun delete(file: File)

    fun makeFolder(folder: File)

    /** Returns once the names in [folder] are on the storage itself. */
    fun sync(folder: File)

    fun freeBytes(folder: File): Long
}

/** The phone's own. */
object PhoneDisk : Disk {
    override fun create(file: File): DiskFile = Opened(FileOutputStream(file, false))

    override fun append(file: File): DiskFile = Opened(FileOutputStream(file, true))

    override fun move(from: File, to: File) {
        Files.move(from.toPath(), to.toPath(), StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING)
    }

    override fun copy(from: File, to: File) {
        // Android allows apps no hard links: this takes room for a second copy.
        Files.copy(from.toPath(), to.toPath(), StandardCopyOption.REPLACE_EXISTING)
    }

    override fun delete(file: File) {
        Files.deleteIfExists(file.toPath())
    }

    override fun makeFolder(folder: File) {
        Files.createDirectories(folder.toPath())
    }

    override fun sync(folder: File) {
        FileChannel.open(folder.toPath(), StandardOpenOption.READ).use { it.force(true) }
    }

    override fun freeBytes(folder: File): Long = folder.usableSpace

    private class Opened(private val stream: FileOutputStream) : DiskFile() {
        override fun write(value: Int) = stream.write(value)

        override fun write(bytes: ByteArray, from: Int, count: Int) = stream.write(bytes, from, count)

        override fun sync() = stream.fd.sync()

        override fun close() = stream.close()
    }
}

/** What [call] does on the storage; whatever fails there is a [StorageException] that names [what]. */
internal inline fun <T> onStorage(what: String, call: () -> T): T =
    try {
        call()
    } catch (exc: IOException) {
        throw StorageException("$what: ${exc.message}", exc)
    }

/** Write [file] durably: from a name of its own, which it loses at one moment to the file that was there. */
internal fun Disk.writeWhole(file: File, write: (OutputStream) -> Unit) = onStorage("cannot write ${file.name}") {
    val partial = File(file.parentFile, ".${file.name}.partial")
    create(partial).use {
        write(it)
        it.sync()
    }
    move(partial, file)
    sync(requireNotNull(file.parentFile))
}

/** Delete a file or a folder with all that is in it; nothing there is fine. */
internal fun Disk.deleteAll(file: File): Unit = onStorage("cannot delete ${file.name}") {
    if (file.isDirectory) for (inner in file.listFiles().orEmpty()) deleteAll(inner)
    if (file.exists()) delete(file)
}
