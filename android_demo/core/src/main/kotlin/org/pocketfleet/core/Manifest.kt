package org.pocketfleet.core

/** A file by its size and the SHA-256 of its bytes (lower-case hexadecimal). */
data class FileEntry(val sha256: String, val bytes: Long)

/** Which terms the training step was traced with; each that is off is no input of it. */
data class StepSettings(
    val optimizer: String,
    val momentum: Boolean,
    val nesterov: Boolean,
    val weightDecay: Boolean,
    val proximal: Boolean,
    val clipping: Boolean,
    val correction: Boolean,
) {
    /** The hyper-parameters that a step takes, in order. */
    val hyperNames: List<String> get() = TODO()
}

/** `manifest.json` of schema version 3: what a phone needs of it, checked. */
class Manifest(
    val taskName: String,
    val settings: StepSettings,
    val hyper: Map<String, Double>,
    val maxBatch: Int,
    val signature: Signature,
    /** What ExecuTorch's `predict` runs on: `xnnpack` or `portable`. */
    val predict: String,
    /** Whether the bundle holds the joint graph for ExecuTorch's own TrainingModule. */
    val trainingModule: Boolean,
    val files: Map<String, FileEntry>,
    /** The oldest versions of the runtimes that run it. */
    val minimumRuntime: Map<String, String>,
    /** By method, memory for intermediate values and outputs at the largest batch. */
    val plannedBytes: Map<String, Long>,
    /** Weights, then slots with anchor and correction, then one largest batch, as inputs. */
    val weightsBytes: Long,
    val stateBytes: Long,
    val batchBytes: Long,
) {
    /** Memory of one training step at the largest batch. */
    val trainingMemoryBytes: Long get() = TODO()

    companion object {
        const val FILE = "manifest.json"
        const val PTE_FILE = "model.pte"
        const val WEIGHTS_FILE = "weights.safetensors"
        const val FROZEN_FILE = "frozen.safetensors"
        const val TRAINING_MODULE_FILE = "training_module.pte"

        /**
         * Read a manifest.
         *
         * @param where names the file in messages.
         * @throws BundleException it is no manifest of this schema version, or says what cannot be.
         */
        fun parse(text: String, where: String): Manifest = TODO(text + where)
    }
}
