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
    private data class Key(val bundle: FileEntry, val models: List<Pair<File, Long>>)

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
        val models = listOfNotNull(store.ownModel(), store.released()?.weights?.let(store.downloads::held))
        val key = Key(entry, models.map { it to it.lastModified() })
        loaded?.let { if (it.key == key) return it }
        unload()
        val bundle = VerifiedBundle.verify(folder, entry)
        val weights = weights(bundle, models) ?: return null
        return Loaded(key, trainers.open(bundle), weights).also { loaded = it }
    }

    /** Of the first of [models] that are the bundle's, else its own; null: it came without any. */
    private fun weights(bundle: VerifiedBundle, models: List<File>): Weights? {
        for (model in models) {
            try {
                return bundle.weights(model)
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
