package org.pocketfleet.core

import java.io.File
import java.io.IOException
import java.nio.file.Files
import java.nio.file.LinkOption
import java.nio.file.attribute.BasicFileAttributes

/**
 * A bundle's folder whose files were found to be the ones that its manifest names, before anything of it was opened.
 *
 * There is no way to one but [verify]. Files that a phone does not need are not looked at and cannot be had.
 */
class VerifiedBundle private constructor(val folder: File, val manifest: Manifest, private val names: Set<String>) {
    /** The ExecuTorch program with the three methods. */
    val program: File get() = File(folder, Manifest.PTE_FILE)

    /** The joint graph for ExecuTorch's own TrainingModule; null: it is not there. */
    val trainingModule: File?
        get() = Manifest.TRAINING_MODULE_FILE.takeIf { it in names }?.let { File(folder, it) }

    /** Whether the first weights are there: a device may do without. */
    val hasWeights: Boolean get() = Manifest.WEIGHTS_FILE in names

    private val learnt = WeightsFile(manifest.signature.trainStep, Role.TRAINABLE, Role.BUFFER)
    private val unchanged = WeightsFile(manifest.signature.trainStep, Role.FROZEN)

    /**
     * The first weights, with those that are never changed.
     *
     * @throws BundleException the files hold other tensors than the programs take, or no finite numbers; or they are
     * not there ([hasWeights]).
     */
    fun firstWeights(): Weights = weights(firstTensors())

    /**
     * The weights of another version; what its file leaves out stays as it was at first.
     *
     * @param version a file whose hash was checked.
     * @param downloadBits of a weight in it, see [DownloadCodec]; 0: all.
     * @throws BundleException as [firstWeights].
     */
    fun weights(version: File, downloadBits: Int = 0): Weights {
        if (downloadBits > 0) return weights(rounded(version, downloadBits))
        if (!hasWeights) return weights(learnt.read(version))
        return weights(firstTensors() + learnt.read(version, whole = false))
    }

    private fun rounded(version: File, bits: Int): Tensors {
        val codec = DownloadCodec(manifest.signature.trainStep, bits)
        try {
            val found = codec.decoded(SafeTensors.read(version, codec.bytes))
            if (!found.isFinite()) throw FormatException("it holds values that are no finite numbers")
            return found
        } catch (e: FormatException) {
            throw BundleException("${version.name}: ${e.message}: it is of another bundle", e)
        } catch (e: IOException) {
            throw BundleException("${version.name} cannot be read: ${e.message}", e)
        }
    }

    private fun firstTensors(): Tensors {
        if (!hasWeights) throw BundleException("the bundle came without ${Manifest.WEIGHTS_FILE}: give a version's")
        return learnt.read(File(folder, Manifest.WEIGHTS_FILE))
    }

    private fun weights(tensors: Tensors): Weights {
        val step = manifest.signature.trainStep
        fun of(role: Role) = step.inputs(role).associate { it.name to tensors.getValue(it.name) }
        val file = File(folder, Manifest.FROZEN_FILE)
        val frozen = if (file.name in names) unchanged.read(file) else emptyMap()
        return Weights(of(Role.TRAINABLE), of(Role.BUFFER), frozen)
    }

    companion object {
        // Programs hold no weights, but for a quantised copy and a joint graph: as the exporter's own limit.
        private const val PROGRAM_LIMIT_BYTES = 2L shl 30

        /**
         * Check everything that a phone needs of the bundle in [folder].
         *
         * @param manifest the size and hash of its manifest, as the service told them.
         * @throws BundleException something is missing, a link, or not what the manifest says.
         */
        fun verify(folder: File, manifest: FileEntry): VerifiedBundle {
            val read = readManifest(folder, manifest)
            val names = neededNames(folder, read)
            for (name in names) {
                val entry = read.files.getValue(name)
                val limit = limit(name, read.signature)
                if (entry.bytes > limit) refuse(name, "is larger than it can be, ${entry.bytes} bytes: at most $limit")
                check(File(folder, name), entry)
            }
            return VerifiedBundle(folder, read, names)
        }

        private fun readManifest(folder: File, entry: FileEntry): Manifest {
            val file = File(folder, Manifest.FILE)
            if (entry.bytes > Manifest.LIMIT_BYTES) {
                refuse(file.name, "is larger than any manifest, ${entry.bytes} bytes: at most ${Manifest.LIMIT_BYTES}")
            }
            check(file, entry)
            try {
                // Read again, and so looked at again: what is parsed is what was hashed.
                val bytes = file.readBytes()
                if (FileHash.of(bytes) != entry.sha256) refuse(file.name, "changed while it was read")
                return Manifest.parse(bytes)
            } catch (e: FormatException) {
                throw BundleException("${file.name}: ${e.message}; the bundle must be exported again", e)
            }
        }

        private fun neededNames(folder: File, manifest: Manifest): Set<String> {
            val needed = setOf(Manifest.PTE_FILE, Manifest.FROZEN_FILE).filter { it in manifest.files }
            val optional = setOf(Manifest.WEIGHTS_FILE, Manifest.TRAINING_MODULE_FILE)
            // A link to nowhere is there too, and refused as a link.
            return (needed + optional.filter { it in manifest.files && isThere(File(folder, it)) }).toSet()
        }

        private fun isThere(file: File) = Files.exists(file.toPath(), LinkOption.NOFOLLOW_LINKS)

        private fun limit(name: String, signature: Signature): Long = when (name) {
            Manifest.WEIGHTS_FILE -> WeightsFile(signature.trainStep, Role.TRAINABLE, Role.BUFFER).mostBytes
            Manifest.FROZEN_FILE -> WeightsFile(signature.trainStep, Role.FROZEN).mostBytes
            else -> PROGRAM_LIMIT_BYTES
        }

        private fun check(file: File, entry: FileEntry) {
            val attributes = try {
                Files.readAttributes(file.toPath(), BasicFileAttributes::class.java, LinkOption.NOFOLLOW_LINKS)
            } catch (e: IOException) {
                throw BundleException("${file.name} is missing: the bundle must be downloaded again", e)
            }
            if (attributes.isSymbolicLink) refuse(file.name, "is a link")
            if (!attributes.isRegularFile) refuse(file.name, "is no file")
            if (attributes.size() != entry.bytes) {
                refuse(file.name, "holds ${attributes.size()} bytes, not the ${entry.bytes} that were named")
            }
            val sha256 = FileHash.of(file)
            if (sha256 != entry.sha256) refuse(file.name, "was altered: its SHA-256 is $sha256, not ${entry.sha256}")
        }

        private fun refuse(name: String, what: String): Nothing =
            throw BundleException("$name $what: the bundle must be downloaded again")
    }
}
