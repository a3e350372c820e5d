package org.pocketfleet.core

import java.io.File
import java.io.RandomAccessFile
import java.nio.file.Files
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.json.JSONObject
import org.junit.Before
import org.junit.Rule as TestRule
import org.junit.rules.TemporaryFolder

class VerifiedBundleTest {
    @get:TestRule
    val temporary = TemporaryFolder()

    private lateinit var folder: File
    private val first = mapOf(
        "0.bias" to HostTensor.of(floatArrayOf(0.5f), 1),
        "0.weight" to HostTensor.of(floatArrayOf(1f, 2f, 3f), 1, 3),
        "steps" to HostTensor.of(longArrayOf(7)),
    )
    private val frozen = mapOf("offset" to HostTensor.of(floatArrayOf(9f, 8f, 7f), 3))

    @Before
    fun makeBundle() {
        folder = temporary.newFolder("bundle")
        File(folder, "model.pte").writeBytes(ByteArray(200_000) { it.toByte() })
        write(first, File(folder, "weights.safetensors"))
        write(frozen, File(folder, "frozen.safetensors"))
    }

    @Test
    fun aSoundBundleIsVerifiedAndGivesItsWeights() {
        val bundle = VerifiedBundle.verify(folder, manifest())
        assertEquals("line", bundle.manifest.taskName)
        assertEquals(File(folder, "model.pte"), bundle.program)
        assertNull(bundle.trainingModule)
        val weights = bundle.firstWeights()
        assertEquals(listOf("0.bias", "0.weight"), weights.trainable.keys.toList())
        assertContentEquals(floatArrayOf(1f, 2f, 3f), weights.trainable.getValue("0.weight").floats())
        assertEquals(7, weights.buffers.getValue("steps").values().getLong(0))
        assertContentEquals(floatArrayOf(9f, 8f, 7f), weights.frozen.getValue("offset").floats())
    }

    @Test
    fun aVersionReplacesWhatItHoldsAndLeavesTheRest() {
        val bundle = VerifiedBundle.verify(folder, manifest())
        val version = temporary.newFile()
        write(mapOf("0.bias" to HostTensor.of(floatArrayOf(-4f), 1)), version)
        val weights = bundle.weights(version)
        assertContentEquals(floatArrayOf(-4f), weights.trainable.getValue("0.bias").floats())
        assertContentEquals(floatArrayOf(1f, 2f, 3f), weights.trainable.getValue("0.weight").floats())
        assertEquals(7, weights.buffers.getValue("steps").values().getLong(0))
    }

    @Test
    fun aDeviceMayDoWithoutTheFirstWeights() {
        val manifest = manifest()
        val version = temporary.newFile().also { write(first, it) }
        val part = temporary.newFile().also { write(first - "steps", it) }
        File(folder, "weights.safetensors").delete()
        val bundle = VerifiedBundle.verify(folder, manifest)
        assertContentEquals(floatArrayOf(0.5f), bundle.weights(version).trainable.getValue("0.bias").floats())
        assertEquals("the bundle came without weights.safetensors: give a version's", failure { bundle.firstWeights() })
        assertTrue("tensor 'steps' must be buffer/steps int64 [], got none" in failure { bundle.weights(part) })
    }

    @Test
    fun anyBitThatChangedIsFound() {
        val manifest = manifest()
        for (name in listOf("model.pte", "weights.safetensors", "frozen.safetensors", "manifest.json")) {
            val file = File(folder, name)
            val sound = file.readBytes()
            for (place in listOf(0, sound.size / 2, sound.size - 1)) {
                file.writeBytes(sound.copyOf().also { it[place] = (it[place] + 1).toByte() })
                val message = failure { VerifiedBundle.verify(folder, manifest) }
                assertTrue(message.startsWith("$name was altered: its SHA-256 is ${FileHash.of(file)}"), message)
            }
            file.writeBytes(sound)
        }
        VerifiedBundle.verify(folder, manifest)
    }

    @Test
    fun filesOfOtherSizesAreFound() {
        val manifest = manifest()
        for (name in listOf("model.pte", "weights.safetensors", "frozen.safetensors", "manifest.json")) {
            val file = File(folder, name)
            val sound = file.readBytes()
            for (changed in listOf(sound + 0, sound.copyOf(sound.size - 1), ByteArray(0))) {
                file.writeBytes(changed)
                val message = failure { VerifiedBundle.verify(folder, manifest) }
                assertTrue(message.startsWith("$name holds ${changed.size} bytes, not the ${sound.size}"), message)
            }
            file.writeBytes(sound)
        }
    }

    @Test
    fun missingFilesLinksAndFoldersAreRefused() {
        val manifest = manifest()
        for (name in listOf("model.pte", "frozen.safetensors", "manifest.json")) {
            val file = File(folder, name)
            val aside = File(temporary.root, name)
            assertTrue(file.renameTo(aside))
            assertTrue(failure { VerifiedBundle.verify(folder, manifest) }.startsWith("$name is missing"))
            // The very bytes, but elsewhere: what a link leads to can change afterwards.
            Files.createSymbolicLink(file.toPath(), aside.toPath())
            assertTrue(failure { VerifiedBundle.verify(folder, manifest) }.startsWith("$name is a link"))
            assertTrue(file.delete() && file.mkdir())
            assertTrue(failure { VerifiedBundle.verify(folder, manifest) }.startsWith("$name is no file"))
            assertTrue(file.delete() && aside.renameTo(file))
        }
        val weights = File(folder, "weights.safetensors")
        assertTrue(weights.delete())
        Files.createSymbolicLink(weights.toPath(), File(temporary.root, "nowhere").toPath())
        assertTrue(failure { VerifiedBundle.verify(folder, manifest) }.startsWith("weights.safetensors is a link"))
    }

    @Test
    fun filesThatAPhoneDoesNotNeedAreNotLookedAt() {
        val onnx = """{"bytes": 5, "sha256": "${"0".repeat(64)}"}"""
        val entry = manifest { getJSONObject("files").put("train_step.onnx", JSONObject(onnx)) }
        File(folder, "unknown").writeText("whatever")
        VerifiedBundle.verify(folder, entry)
    }

    @Test
    fun theTrainingModuleIsHadWhereItIsThere() {
        val module = File(folder, "training_module.pte").apply { writeText("a joint graph") }
        val entry = manifest {
            put("training_module", true)
            getJSONObject("files").put(module.name, told(module))
        }
        assertEquals(module, VerifiedBundle.verify(folder, entry).trainingModule)
        module.writeText("a joint GRAPH")
        assertTrue(failure { VerifiedBundle.verify(folder, entry) }.startsWith("training_module.pte was altered"))
        module.delete()
        assertNull(VerifiedBundle.verify(folder, entry).trainingModule)
    }

    @Test
    fun aLieInTheManifestIsToldWithItsFile() {
        val entry = manifest { put("schema_version", 4) }
        val message = failure { VerifiedBundle.verify(folder, entry) }
        assertTrue(message.startsWith("manifest.json: schema_version must be 3, got 4"), message)
        val text = File(folder, "manifest.json").apply { writeText("{") }
        val broken = failure { VerifiedBundle.verify(folder, FileEntry(FileHash.of(text), 1)) }
        assertTrue(broken.startsWith("manifest.json: it is no JSON"), broken)
    }

    @Test
    fun filesLargerThanTheyCanBeAreRefusedUnread() {
        val entry = manifest {
            getJSONObject("files").getJSONObject("weights.safetensors").put("bytes", 1L shl 40)
            getJSONObject("files").getJSONObject("model.pte").put("bytes", 3L shl 30)
        }
        assertTrue(failure { VerifiedBundle.verify(folder, entry) }.startsWith("model.pte is larger than it can be"))
        val weights = manifest { getJSONObject("files").getJSONObject("weights.safetensors").put("bytes", 1L shl 40) }
        RandomAccessFile(File(folder, "weights.safetensors"), "rw").use { it.setLength(1L shl 40) }
        val message = failure { VerifiedBundle.verify(folder, weights) }
        assertTrue(message.startsWith("weights.safetensors is larger than it can be, ${1L shl 40} bytes"), message)
        val manifest = failure { VerifiedBundle.verify(folder, FileEntry("0".repeat(64), 1L shl 30)) }
        assertTrue(manifest.startsWith("manifest.json is larger than any manifest"), manifest)
    }

    @Test
    fun weightsOfAnotherModelAreRefused() {
        fun message(tensors: Tensors): String {
            write(tensors, File(folder, "weights.safetensors"))
            val bundle = VerifiedBundle.verify(folder, manifest())
            return failure { bundle.firstWeights() }
        }
        fun of(name: String, tensor: HostTensor) = message(first + (name to tensor))
        val other = "weights.safetensors: tensor '0.bias' must be trainable/0.bias float32 [1], got"
        assertTrue("$other float32 [2]" in of("0.bias", HostTensor.of(floatArrayOf(1f, 2f), 2)))
        assertTrue("$other int64 [1]" in of("0.bias", HostTensor.of(longArrayOf(1), 1)))
        assertTrue("$other none" in message(first - "0.bias"))
        assertTrue("tensor 'more' must be none, got float32 []" in of("more", HostTensor.of(floatArrayOf(1f))))
        val endless = of("0.bias", HostTensor.of(floatArrayOf(Float.NaN), 1))
        assertEquals("weights.safetensors: tensor '0.bias' holds values that are no finite numbers", endless)
        File(folder, "weights.safetensors").writeText("no tensors at all")
        val bundle = VerifiedBundle.verify(folder, manifest())
        assertTrue(failure { bundle.firstWeights() }.startsWith("weights.safetensors: its header must end"))
    }

    @Test
    fun nobodyElseCanMakeOne() {
        // No constructor that other sources can call, as they cannot the compiler's for the companion, and no copy.
        assertTrue(VerifiedBundle::class.java.constructors.all { it.isSynthetic })
        assertTrue(VerifiedBundle::class.java.declaredMethods.none { it.name == "copy" })
    }

    /** Writes the manifest of what lies in the folder, changed, and gives its entry. */
    private fun manifest(change: JSONObject.() -> Unit = {}): FileEntry {
        val manifest = RepositoryFile.json("tests/android_demo/cases/manifest.json").getJSONObject("manifest")
        val files = manifest.getJSONObject("files")
        for (name in files.keys().asSequence().map { it.toString() }.toList()) files.put(name, told(File(folder, name)))
        val file = File(folder, "manifest.json").apply { writeText(manifest.apply(change).toString()) }
        return FileEntry(FileHash.of(file), file.length())
    }

    private fun told(file: File) = JSONObject().put("bytes", file.length()).put("sha256", FileHash.of(file))

    private fun write(tensors: Tensors, file: File) = file.outputStream().use { SafeTensors.write(tensors, it) }

    private fun failure(block: () -> Unit): String = assertFailsWith<BundleException> { block() }.message.orEmpty()
}
