package org.pocketfleet.core

import java.io.File

/** Work is given up: [reason] is a word for logs, or says what the service asks for that this app cannot do. */
internal class GivenUp(val reason: String, cause: Throwable? = null) : Exception(reason, cause)

/** Work waits: the rule forbids what comes next, and it is gone on with another time. */
internal class NotNow(val why: Ineligible) : Exception(why.word)

/** The files that work needs: brought here, and a bundle verified before anything opens it. */
internal class WorkFiles(private val service: ServiceClient, private val downloads: Downloads) {
    /**
     * The bundle of these files by name; those that no phone needs are not asked for.
     *
     * @throws GivenUp the service names no manifest or no program, or what is here turned out to be something else;
     *   then it is downloaded anew next time.
     */
    suspend fun bundle(entries: Map<String, FileEntry>, patience: Patience): VerifiedBundle {
        val missing = setOf(Manifest.FILE, Manifest.PTE_FILE) - entries.keys
        if (missing.isNotEmpty()) {
            throw GivenUp("the service's bundle lacks ${missing.joinToString()}: export it anew there")
        }
        val manifest = entries.getValue(Manifest.FILE)
        val folder = downloads.bundle(manifest.sha256)
        if (!folder.isDirectory) {
            val files = entries.filterKeys { it in KNOWN }.mapValues { (_, entry) -> file(entry, patience) }
            downloads.assemble(manifest.sha256, files)
        }
        try {
            return VerifiedBundle.verify(folder, manifest)
        } catch (exc: BundleException) {
            downloads.dropBundle(manifest.sha256)
            throw GivenUp("damaged_bundle", exc)
        }
    }

    /**
     * One file.
     *
     * @throws GivenUp the service has it no more, or something alters it on the way.
     */
    suspend fun file(entry: FileEntry, patience: Patience): File =
        try {
            patience.look()
            service.fetch(entry, downloads, patience)
        } catch (exc: Refused) {
            // A version that is there no more; what else is refused concerns the whole device.
            if (exc.status != NOT_FOUND) throw exc
            throw GivenUp(exc.code, exc)
        } catch (exc: FormatException) {
            throw GivenUp("damaged_download", exc)
        }

    private companion object {
        const val NOT_FOUND = 404
        val KNOWN = setOf(
            Manifest.FILE,
            Manifest.PTE_FILE,
            Manifest.WEIGHTS_FILE,
            Manifest.FROZEN_FILE,
            Manifest.TRAINING_MODULE_FILE,
        )
    }
}
