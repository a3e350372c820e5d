package org.pocketfleet.core

import java.io.File

/**
 * A bundle's folder whose files were found to be the ones that its manifest names, before anything of it was opened.
 *
 * There is no way to one but [verify].
 */
class VerifiedBundle private constructor(val folder: File, val manifest: Manifest, private val names: Set<String>) {
    /** The ExecuTorch program with the three methods. */
    val program: File get() = file(Manifest.PTE_FILE)

    /** The joint graph for ExecuTorch's own TrainingModule; null: it is not there. */
    val trainingModule: File? get() = if (Manifest.TRAINING_MODULE_FILE in names) file(Manifest.TRAINING_MODULE_FILE) else null

    /** Whether the first weights are there: a device may do without. */
    val hasWeights: Boolean get() = Manifest.WEIGHTS_FILE in names

    /** The first weights, those that are never changed among them. */
    fun firstWeights(): Weights = TODO()

    /** The weights of another version, from a file whose hash was checked; what it leaves out stays as at first. */
    fun weights(version: File): Weights = TODO("$version")

    private fun file(name: String): File = File(folder, name)

    companion object {
        /**
         * Check everything that a phone needs of the bundle in [folder].
         *
         * @param manifest the size and hash of its manifest, from whom one trusts.
         * @throws BundleException something is missing, a link, or not what the manifest says.
         */
        fun verify(folder: File, manifest: FileEntry): VerifiedBundle = TODO("$folder $manifest")
    }
}
