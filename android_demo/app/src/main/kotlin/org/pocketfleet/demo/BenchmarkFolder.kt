package org.pocketfleet.demo

import org.pocketfleet.core.BundleException
import org.pocketfleet.core.FileEntry
import org.pocketfleet.core.FileHash
import org.pocketfleet.core.Manifest
import org.pocketfleet.core.VerifiedBundle
import java.io.File

/** The bundle that `adb push` brought: a folder in the app's own external files. */
object BenchmarkFolder {
    /**
     * The bundle of that name, its files checked against its manifest; that one is trusted, as all that lies in the
     * app's own folder.
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
        return VerifiedBundle.verify(folder, FileEntry(FileHash.of(manifest), manifest.length()))
    }
}
