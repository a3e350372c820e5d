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

    private fun keepBundle() {
        store.downloads.assemble(entry.sha256, source.listFiles().orEmpty().filter { it.isFile }.associateBy { it.name })
        store.keepBundle(entry, bundle.manifest.memory.trainingBytes, downloadBits = 0)
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
    fun `a device that was forgotten predicts no more`() {
        keepBundle()
        assertNotNull(predicted())
        store.forget()
        assertNull(predicted())
    }
}
