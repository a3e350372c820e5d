package org.pocketfleet.demo

import org.pocketfleet.core.BundleException
import org.pocketfleet.core.FileEntry
import org.pocketfleet.core.Manifest
import org.pocketfleet.core.VerifiedBundle
import java.io.File
import java.security.MessageDigest

/** The bundle that `adb push` brought: a folder in the app's own external files. */
object BenchmarkFolder {
    private const val HEX = "0123456789abcdef"

    /**
     * The bundle of that name, its files checked against its manifest; that one is trusted, since it came over the
     * cable.
     *
     * @param root the app's own folder: any app may start the screen with any [name], but none leads out of there.
     * @throws BundleException it is elsewhere, or no sound bundle.
     */
    fun bundle(root: File, name: String): VerifiedBundle {
        val folder = (if (File(name).isAbsolute) File(name) else File(root, name)).canonicalFile
        if (!folder.startsWith(root.canonicalFile)) {
            throw BundleException("a bundle to measure lies in $root (adb push it there), not in $name")
        }
        val manifest = File(folder, Manifest.FILE)
        if (!manifest.isFile) throw BundleException("$folder is no bundle: it holds no ${Manifest.FILE}")
        val digest = MessageDigest.getInstance("SHA-256").digest(manifest.readBytes())
        val sha256 = digest.joinToString("") { "${HEX[it.toInt() shr 4 and 15]}${HEX[it.toInt() and 15]}" }
        return VerifiedBundle.verify(folder, FileEntry(sha256, manifest.length()))
    }
}
