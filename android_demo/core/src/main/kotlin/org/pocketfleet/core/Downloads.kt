package org.pocketfleet.core

import java.io.File

/**
 * Downloaded files by the SHA-256 of their bytes, and the folders of bundles that are made of them.
 *
 * A file has its name once its hash was found right, and that is looked at before each use: what the storage damaged is
 * downloaded anew. What a broken connection left of one is kept beside it.
 */
class Downloads(private val folder: File, private val bundles: File, private val disk: Disk) {
    /** The file of [entry]; null: it is not here. */
    fun held(entry: FileEntry): File? {
        val file = File(folder, entry.sha256)
        if (!file.isFile) return null
        val sha256 = onStorage("cannot read a download") { FileHash.of(file) }
        if (sha256 == entry.sha256 && file.length() == entry.bytes) return file
        disk.deleteAll(file)
        return null
    }

    /** What is there of [entry] so far. */
    fun partial(entry: FileEntry): PartialFile {
        onStorage("cannot make ${folder.name}") { disk.makeFolder(folder) }
        return PartialFile(entry, File(folder, ".${entry.sha256}.partial"), File(folder, entry.sha256), disk)
    }

    /** Where the bundle is whose manifest has that hash; it is there whole or not at all. */
    fun bundle(manifestSha256: String): File = File(bundles, manifestSha256)

    /** Make the folder of a bundle from [files] by name. */
    fun assemble(manifestSha256: String, files: Map<String, File>): File {
        val target = bundle(manifestSha256)
        val partial = File(bundles, ".$manifestSha256.partial")
        disk.deleteAll(partial)
        onStorage("cannot make the bundle's folder") {
            disk.makeFolder(partial)
            for ((name, file) in files) disk.copy(file, File(partial, name))
            disk.sync(partial)
            disk.move(partial, target)
            disk.sync(bundles)
        }
        return target
    }

    /** A bundle turned out to be damaged: the next one is downloaded. */
    fun dropBundle(manifestSha256: String) {
        val gone = File(bundles, ".gone")
        disk.deleteAll(gone)
        val bundle = bundle(manifestSha256)
        onStorage("cannot drop a bundle") { if (bundle.exists()) disk.move(bundle, gone) }
        disk.deleteAll(gone)
    }

    /** Remove all but the files of [wanted] and one bundle: versions come and go, a phone's storage does not grow. */
    fun keepOnly(wanted: Collection<FileEntry>, manifestSha256: String) {
        val kept = wanted.flatMap { listOf(it.sha256, ".${it.sha256}.partial") }
        for (file in folder.listFiles().orEmpty()) if (file.name !in kept) disk.deleteAll(file)
        for (file in bundles.listFiles().orEmpty()) if (file.name != manifestSha256) disk.deleteAll(file)
    }
}

/** What is there of a file that is being downloaded; it goes on where it was left. */
class PartialFile(val entry: FileEntry, private val file: File, private val target: File, private val disk: Disk) {
    val bytes: Long get() = file.length()

    fun append(): DiskFile = onStorage("cannot write a download") { disk.append(file) }

    fun clear() = disk.deleteAll(file)

    /** The file under its own name; null: its hash was wrong, and it is there no more. */
    fun finished(): File? {
        if (onStorage("cannot read a download") { FileHash.of(file) } != entry.sha256) {
            clear()
            return null
        }
        onStorage("cannot keep a download") { disk.move(file, target) }
        return target
    }
}
