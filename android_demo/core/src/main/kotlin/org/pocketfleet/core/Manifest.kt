package org.pocketfleet.core

/** A file by its size and the SHA-256 of its bytes (lower-case hexadecimal). */
data class FileEntry(val sha256: String, val bytes: Long) {
    companion object {
        private val SHA256 = Regex("[0-9a-f]{64}")

        /** @throws FormatException it names no file's size and hash. */
        fun of(json: CheckedJson): FileEntry {
            val sha256 = json.text("sha256")
            if (!SHA256.matches(sha256)) json.wrong("sha256", "64 lower-case hexadecimal digits")
            return FileEntry(sha256, json.whole("bytes"))
        }
    }
}

/** Bytes of memory that training on ExecuTorch plans at the largest batch. */
class PlannedMemory(
    /** Intermediate values and outputs of one step: the arena that the program asks for. */
    val trainStepBytes: Long,
    /** Trainable weights, buffers and frozen weights. */
    val weightsBytes: Long,
    /** Slots, anchor and correction. */
    val stateBytes: Long,
    /** One largest batch. */
    val batchBytes: Long,
) {
    /** What [Eligibility] asks the phone for. */
    val trainingBytes: Long
        get() = trainStepBytes + weightsBytes + stateBytes + batchBytes
}

/** `manifest.json` of schema version 3: what a phone needs of it, checked. */
class Manifest(
    val taskName: String,
    val settings: StepSettings,
    /** Defaults of the hyper-parameters that a step takes; an assignment brings its own. */
    val hyper: Map<String, Double>,
    val maxBatch: Int,
    val signature: Signature,
    val memory: PlannedMemory,
    /** What ExecuTorch's `predict` runs on: `xnnpack` or `portable`. */
    val predict: String,
    /** Whether the bundle holds the joint graph for ExecuTorch's own TrainingModule. */
    val trainingModule: Boolean,
    val files: Map<String, FileEntry>,
    /** The oldest versions of the runtimes that run it, such as `executorch` to `1.5.1`. */
    val minimumRuntime: Map<String, String>,
) {
    companion object {
        const val SCHEMA_VERSION = 3L
        const val FILE = "manifest.json"
        const val PTE_FILE = "model.pte"
        const val WEIGHTS_FILE = "weights.safetensors"
        const val FROZEN_FILE = "frozen.safetensors"
        const val TRAINING_MODULE_FILE = "training_module.pte"

        /** MobileNetV2's counts of operators fill about 1 MB; a parser needs many times a text's size. */
        const val LIMIT_BYTES = 8L shl 20

        private const val EXECUTORCH = "executorch"
        private val PREDICTS_ON = setOf("xnnpack", "portable")

        // A sum of four stays below 2^63; no phone has as much.
        private val MEMORY = 0..(1L shl 53)
        private const val TOLD_CHARACTERS = 200

        /**
         * Read a manifest.
         *
         * @throws FormatException it is no manifest of this schema version for ExecuTorch, or says what cannot be.
         */
        fun parse(bytes: ByteArray): Manifest {
            val json = CheckedJson.parse(bytes)
            val version = json.whole("schema_version")
            if (version != SCHEMA_VERSION) {
                throw FormatException(
                    "schema_version must be $SCHEMA_VERSION, got $version: this app and the bundle's exporter are of " +
                        "different versions of pocketfleet",
                )
            }
            return of(json).apply(Manifest::check)
        }

        private fun of(json: CheckedJson): Manifest {
            val hyper = json.part("hyper")
            val files = json.part("files")
            val footprint = json.part("footprint")
            if (!footprint.has(EXECUTORCH)) {
                throw FormatException("the bundle was exported for ${footprint.names} only, phones run $EXECUTORCH")
            }
            val predict = json.text("predict")
            if (predict !in PREDICTS_ON) json.wrong("predict", "one of $PREDICTS_ON")
            return Manifest(
                taskName = json.part("task").text("name"),
                settings = StepSettings.of(json.part("settings")),
                hyper = hyper.names.associateWith(hyper::number),
                maxBatch = json.whole("max_batch", 1..Int.MAX_VALUE.toLong()).toInt(),
                signature = Signature.of(json.part("signature")),
                memory = memory(footprint.part(EXECUTORCH)),
                predict = predict,
                trainingModule = json.flag("training_module"),
                files = files.names.associateWith { FileEntry.of(files.part(it)) },
                minimumRuntime = json.part("minimum_runtime").let { it.names.associateWith(it::text) },
            )
        }

        private fun memory(footprint: CheckedJson) = PlannedMemory(
            trainStepBytes = footprint.part("planned_bytes").whole("train_step", MEMORY),
            weightsBytes = footprint.whole("weights_bytes", MEMORY),
            stateBytes = footprint.whole("state_bytes", MEMORY),
            batchBytes = footprint.whole("batch_bytes", MEMORY),
        )
    }

    private fun check() {
        if (hyper.keys != settings.hyperNames.toSet()) {
            throw FormatException("hyper must hold exactly ${settings.hyperNames}, got ${hyper.keys}")
        }
        SignatureRules(signature, settings).check()
        for (name in files.keys) checkPlainName(name)
        val wanted = setOfNotNull(
            PTE_FILE,
            WEIGHTS_FILE,
            FROZEN_FILE.takeIf { signature.trainStep.inputs(Role.FROZEN).isNotEmpty() },
            TRAINING_MODULE_FILE.takeIf { trainingModule },
        )
        val missing = wanted - files.keys
        if (missing.isNotEmpty()) throw FormatException("files lacks $missing, it holds ${files.keys}")
    }

    private fun checkPlainName(name: String) {
        // A file directly in the bundle: no folder, no way out of it.
        if (name in setOf("", ".", "..") || name.any { it == '/' || it == '\\' || it == '\u0000' }) {
            throw FormatException("files must hold plain file names, got '${name.take(TOLD_CHARACTERS)}'")
        }
    }
}
