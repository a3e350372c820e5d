package org.pocketfleet.demo

import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
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
 * downloaded, else the bundle's first.
 *
 * The program stays loaded for the next call, until it or the weights are others.
 */
class DevicePredictor(
    private val store: DeviceStore,
    private val trainers: TrainerFactory,
    private val task: () -> DemoTask,
) : Predictor {
    private data class Key(val bundle: FileEntry, val model: File?, val modified: Long)

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
        val model = store.ownModel() ?: store.released()?.weights?.let(store.downloads::held)
        val key = Key(entry, model, model?.lastModified() ?: 0)
        loaded?.let { if (it.key == key) return it }
        unload()
        val bundle = VerifiedBundle.verify(folder, entry)
        if (model == null && !bundle.hasWeights) return null
        val weights = if (model == null) bundle.firstWeights() else bundle.weights(model)
        return Loaded(key, trainers.open(bundle), weights).also { loaded = it }
    }

    private fun unload() {
        loaded?.trainer?.close()
        loaded = null
    }
}
