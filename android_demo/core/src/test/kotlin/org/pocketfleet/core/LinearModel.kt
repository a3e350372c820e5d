package org.pocketfleet.core

import java.io.ByteArrayOutputStream
import org.json.JSONArray
import org.json.JSONObject

/**
 * A model small enough to reckon by hand, as a bundle: `w` of two weights, the output `w . x`, half the squared error,
 * and a buffer that counts steps.
 */
class LinearModel(proximal: Boolean = false, private val program: String = "three methods") {
    private val hyper = listOf("learning_rate") + if (proximal) listOf("proximal_mu") else emptyList()

    private val weightSpecs = listOf(spec("trainable", "w", "float32", 2), spec("buffer", "seen", "int64"))
    private val x = spec("x", "x", "float32", "batch", 2)
    private val y = spec("y", "y", "float32", "batch")

    /** The bundle's files by name, without its manifest. */
    private val contents = mapOf(
        Manifest.PTE_FILE to program.toByteArray(),
        Manifest.WEIGHTS_FILE to bytes(weights(0f, 0f)),
    )

    private val manifest = JSONObject()
        .put("schema_version", 3)
        .put("task", JSONObject().put("name", "linear").put("path", JSONObject.NULL).put("options", JSONObject()))
        .put("settings", settings(proximal))
        .put("hyper", JSONObject(hyper.associateWith { 0.1 }))
        .put("max_batch", 8)
        .put("signature", signature(proximal))
        .put("footprint", JSONObject().put("executorch", footprint()))
        .put("predict", "portable")
        .put("training_module", false)
        .put("files", JSONObject(contents.mapValues { (_, data) -> entry(data).toJson() }))
        .put("minimum_runtime", JSONObject())

    /** The bundle's files by name. */
    val files: Map<String, ByteArray> = contents + (Manifest.FILE to manifest.toString().toByteArray())

    private fun settings(proximal: Boolean) = JSONObject().put("optimizer", "sgd").put("proximal", proximal).apply {
        for (term in listOf("momentum", "nesterov", "weight_decay", "clipping", "correction")) put(term, false)
    }

    private fun signature(proximal: Boolean): JSONObject {
        val anchor = if (proximal) listOf(spec("anchor", "w", "float32", 2)) else emptyList()
        val loss = spec("loss", "loss", "float32")
        val step = weightSpecs + anchor + x + y + hyper.map { spec("hyper", it, "float32") }
        return JSONObject()
            .put("train_step", method(step, listOf(loss) + weightSpecs))
            .put("predict", method(weightSpecs + x, listOf(spec("output", "output", "float32", "batch"))))
            .put("evaluate", method(weightSpecs + x + y, listOf(loss, spec("metric", "absolute_error", "float32"))))
    }

    private fun method(inputs: List<JSONObject>, outputs: List<JSONObject>) =
        JSONObject().put("inputs", JSONArray(inputs)).put("outputs", JSONArray(outputs))

    private fun footprint() = JSONObject()
        .put("planned_bytes", JSONObject().put("train_step", NEEDED_BYTES))
        .put("weights_bytes", 0).put("state_bytes", 0).put("batch_bytes", 0)

    companion object {
        /** What a step plans: a phone of a gigabyte has it. */
        const val NEEDED_BYTES = 1L shl 20

        fun weights(first: Float, second: Float, seen: Long = 0): Tensors = mapOf(
            "w" to HostTensor.of(floatArrayOf(first, second), 2),
            "seen" to HostTensor.of(longArrayOf(seen)),
        )

        fun bytes(tensors: Tensors): ByteArray =
            ByteArrayOutputStream().also { SafeTensors.write(tensors, it) }.toByteArray()

        fun entry(data: ByteArray) = FileEntry(FileHash.of(data), data.size.toLong())

        private fun spec(role: String, name: String, dtype: String, vararg shape: Any) =
            JSONObject().put("role", role).put("name", name).put("dtype", dtype).put("shape", JSONArray(shape.toList()))
    }
}

/** Runs [LinearModel]; counts what it was asked for, and does what a test wants before each step. */
class LinearTrainer(private val beforeStep: (Int) -> Unit = {}) : Trainer {
    var steps = 0
        private set
    var evaluations = 0
        private set
    var isClosed = false
        private set

    override fun trainStep(state: TrainState, batch: Batch, hyper: Map<String, Float>, dropoutSeed: Long): StepResult {
        steps += 1
        beforeStep(steps)
        val rate = hyper.getValue("learning_rate")
        val w = state.weights.trainable.getValue("w").floats()
        val (x, y) = batch.x.floats() to batch.y.floats()
        val errors = FloatArray(y.size) { w[0] * x[2 * it] + w[1] * x[2 * it + 1] - y[it] }
        val anchor = state.anchor["w"]?.floats()
        val after = FloatArray(2) { place ->
            val gradient = errors.indices.map { errors[it] * x[2 * it + place] }.average().toFloat()
            val pull = if (anchor == null) 0f else hyper.getValue("proximal_mu") * (w[place] - anchor[place])
            w[place] - rate * (gradient + pull)
        }
        val seen = state.weights.buffers.getValue("seen").values().getLong(0) + 1
        val weights = LinearModel.weights(after[0], after[1], seen)
        val next = Weights(weights - "seen", weights - "w", emptyMap())
        val loss = errors.map { it * it / 2 }.average().toFloat()
        return StepResult(loss, TrainState(next, state.slots, state.anchor, state.correction))
    }

    override fun predict(weights: Weights, x: HostTensor): HostTensor {
        val (w, values) = weights.trainable.getValue("w").floats() to x.floats()
        val out = FloatArray(values.size / 2) { w[0] * values[2 * it] + w[1] * values[2 * it + 1] }
        return HostTensor.of(out, out.size.toLong())
    }

    override fun evaluate(weights: Weights, batch: Batch): Map<String, Float> {
        evaluations += 1
        val (found, wanted) = predict(weights, batch.x).floats() to batch.y.floats()
        val errors = found.indices.map { Math.abs(found[it] - wanted[it]) }
        val loss = errors.map { it * it / 2 }.average().toFloat()
        return mapOf("loss" to loss, "absolute_error" to errors.average().toFloat())
    }

    override fun close() {
        isClosed = true
    }
}

/** Points of the plane `y = 2 a + b`, any number of them. */
class PlaneExamples(override val count: Int) : ExampleSource {
    override fun take(places: IntArray): Batch {
        val x = FloatArray(2 * places.size) { at -> places[at / 2].let { if (at % 2 == 0) it % 3f else it % 5f - 2f } }
        val y = FloatArray(places.size) { 2 * x[2 * it] + x[2 * it + 1] }
        return Batch(HostTensor.of(x, places.size.toLong(), 2), HostTensor.of(y, places.size.toLong()))
    }
}
