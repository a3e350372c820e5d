package org.pocketfleet.demo

import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import org.pocketfleet.core.BundleException
import org.pocketfleet.core.DeviceStore
import org.pocketfleet.core.FileEntry
import org.pocketfleet.core.HostTensor
import org.pocketfleet.core.Trainer
import org.pocketfleet.core.TrainerFactory
import org.pocketfleet.core.VerifiedBundle
import org.pocketfleet.core.Weights
import java.io.File

/**
 * Predictions by the program and the weights that the device holds: its own model, else the service's newest that was
 * downloaded, else the bundle's first. One that was made for another bundle's program is passed over.
 *
 * The program stays loaded for the next call, until it or the weights are others.
 */
class DevicePredictor(
    private val store: DeviceStore,
    private val trainers: TrainerFactory,
    private val task: () -> DemoTask,
) : Predictor {
    /** A file of weights, of so many bits each. */
    private data class Model(val file: File, val modified: Long, val downloadBits: Int)

    private data class Key(val bundle: FileEntry, val models: List<Model>)

    private class Loaded(val key: Key, val trainer: Trainer, val weights: Weights)

    // A trainer takes one call at a time.
    private val one = Mutex()
    private var loaded: Loaded? = null

    override suspend fun predict(x: FloatArray): FloatArray? = one.withLock {
        val now = load() ?: return@withLock null
        now.trainer.predict(now.weights, HostTensor.of(x, 1, *task().shape.toLongArray())).floats()
    }

    /** What is there; null: nothing yet, or no weights for it. */
    private fun load(): Loaded? {
        val entry = store.bundle()
        val folder = entry?.let { store.downloads.bundle(it.sha256) }?.takeIf(File::isDirectory)
        if (entry == null || folder == null) {
            unload()
            return null
        }
        val models = listOfNotNull(
            store.ownModel()?.let { model(it, downloadBits = 0) },
            store.released()?.weights?.let(store.downloads::held)?.let { model(it, store.downloadBits()) },
        )
        val key = Key(entry, models)
        loaded?.let { if (it.key == key) return it }
        unload()
        val bundle = VerifiedBundle.verify(folder, entry)
        val weights = weights(bundle, models) ?: return null
        return Loaded(key, trainers.open(bundle), weights).also { loaded = it }
    }

    private fun model(file: File, downloadBits: Int) = Model(file, file.lastModified(), downloadBits)

    /** Of the first of [models] that are the bundle's, else its own; null: it came without any. */
    private fun weights(bundle: VerifiedBundle, models: List<Model>): Weights? {
        for (model in models) {
            try {
                return bundle.weights(model.file, model.downloadBits)
            } catch (_: BundleException) {
                // The service went on to another bundle, for which this phone has trained nothing yet.
            }
        }
        return if (bundle.hasWeights) bundle.firstWeights() else null
    }

    private fun unload() {
        loaded?.trainer?.close()
        loaded = null
    }
}
