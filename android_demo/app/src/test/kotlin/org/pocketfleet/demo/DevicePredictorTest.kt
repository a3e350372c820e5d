package org.pocketfleet.demo

import kotlinx.coroutines.runBlocking
import org.junit.Rule
import org.junit.rules.TemporaryFolder
import org.pocketfleet.core.DeviceStore
import org.pocketfleet.core.FileEntry
import org.pocketfleet.core.FileHash
import org.pocketfleet.core.HostTensor
import org.pocketfleet.core.Manifest
import org.pocketfleet.core.ReleasedModel
import org.pocketfleet.core.SafeTensors
import org.pocketfleet.core.Tensors
import org.pocketfleet.core.Trainer
import org.pocketfleet.core.VerifiedBundle
import org.pocketfleet.core.Weights
import org.pocketfleet.trainer.ExecutorchTrainer
import java.io.File
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertNotNull
import kotlin.test.assertNull

class DevicePredictorTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val source = bundleFolder("boston")
    private val entry = File(source, Manifest.FILE).let { FileEntry(FileHash.of(it), it.length()) }
    private val bundle = VerifiedBundle.verify(source, entry)
    private val store by lazy { DeviceStore(File(folder.root, "device")) }
    private val x = FloatArray(13) { 1f + it }
    private var opened = 0
    private val predictor by lazy {
        DevicePredictor(
            store,
            trainers = { opened += 1; ExecutorchTrainer.open(it) },
            task = { DemoTask.HOUSES },
        )
    }

    private fun predicted() = runBlocking { predictor.predict(x) }

    private fun keepBundle(downloadBits: Int = 0) {
        store.downloads.assemble(entry.sha256, source.listFiles().orEmpty().filter { it.isFile }.associateBy { it.name })
        store.keepBundle(entry, bundle.manifest.memory.trainingBytes, downloadBits)
    }

    private fun expected(weights: (Trainer) -> FloatArray): FloatArray = ExecutorchTrainer.open(bundle).use(weights)

    /** The first weights, every trainable one halved. */
    private fun halved(): Tensors = bundle.firstWeights().let { first ->
        first.buffers + first.trainable.mapValues { (_, tensor) ->
            HostTensor.of(FloatArray(tensor.count.toInt()) { tensor.floats()[it] / 2 }, *tensor.shape)
        }
    }

    @Test
    fun `without a bundle there is no model`() {
        assertNull(predicted())
        assertEquals(0, opened)
    }

    @Test
    fun `first the bundle's weights, then the device's own, and the program is loaded once for each`() {
        keepBundle()
        val first = expected { it.predict(bundle.firstWeights(), HostTensor.of(x, 1, 13)).floats() }
        repeat(3) { assertContentEquals(first, predicted()) }
        assertEquals(1, opened)
        val file = File(folder.root, "device/model.safetensors")
        file.outputStream().use { SafeTensors.write(halved(), it) }
        val own = expected { it.predict(bundle.weights(file), HostTensor.of(x, 1, 13)).floats() }
        assertContentEquals(own, predicted())
        assertEquals(2, opened)
        assertEquals(false, first.contentEquals(own))
    }

    @Test
    fun `a model of another bundle gives way to the service's, or to the first`() {
        keepBundle()
        val own = File(folder.root, "device/model.safetensors")
        val foreign: Tensors = mapOf("another" to HostTensor.of(floatArrayOf(1f), 1))
        own.outputStream().use { SafeTensors.write(foreign, it) }
        val first = expected { it.predict(bundle.firstWeights(), HostTensor.of(x, 1, 13)).floats() }
        assertContentEquals(first, predicted())
        val weights = File(folder.root, "weights").apply { outputStream().use { SafeTensors.write(halved(), it) } }
        val released = FileEntry(FileHash.of(weights), weights.length())
        store.keep(ReleasedModel(2, released))
        weights.copyTo(File(folder.root, "device/files/${released.sha256}"))
        val shared = expected { it.predict(bundle.weights(weights), HostTensor.of(x, 1, 13)).floats() }
        assertContentEquals(shared, predicted())
        assertEquals(false, first.contentEquals(shared))
    }

    @Test
    fun `the service's weights are read in as few bits as its versions have`() {
        keepBundle(downloadBits = 8)
        val first = bundle.firstWeights()
        val counts = first.trainable.values.map { it.count.toInt() }
        // Each weight is three steps of a hundredth above nothing, which is code 127; a block has 1,024 weights.
        val coded = mapOf(
            "weights/codes" to HostTensor.of(ByteArray(counts.sum()) { (127 + 3).toByte() }),
            "weights/steps" to counts.sumOf { (it + 1023) / 1024 }.let { blocks ->
                HostTensor.of(FloatArray(blocks) { 0.01f }, blocks.toLong())
            },
        )
        val file = File(folder.root, "weights").apply { outputStream().use { SafeTensors.write(coded, it) } }
        val released = FileEntry(FileHash.of(file), file.length())
        store.keep(ReleasedModel(2, released))
        file.copyTo(File(folder.root, "device/files/${released.sha256}"))
        val trainable = first.trainable.mapValues { (_, tensor) ->
            HostTensor.of(FloatArray(tensor.count.toInt()) { 3f * 0.01f }, *tensor.shape)
        }
        val weights = Weights(trainable, first.buffers, first.frozen)
        assertContentEquals(expected { it.predict(weights, HostTensor.of(x, 1, 13)).floats() }, predicted())
    }

    @Test
    fun `a device that was forgotten predicts no more`() {
        keepBundle()
        assertNotNull(predicted())
        store.forget()
        assertNull(predicted())
    }
}
