package org.pocketfleet.trainer

import org.json.JSONObject
import org.pocketfleet.core.Batch
import org.pocketfleet.core.Batches
import org.pocketfleet.core.ElementType
import org.pocketfleet.core.FileEntry
import org.pocketfleet.core.FileHash
import org.pocketfleet.core.HostTensor
import org.pocketfleet.core.Manifest
import org.pocketfleet.core.Role
import org.pocketfleet.core.SafeTensors
import org.pocketfleet.core.Tensors
import org.pocketfleet.core.TensorSpec
import org.pocketfleet.core.TrainState
import org.pocketfleet.core.VerifiedBundle
import org.pocketfleet.core.Weights
import java.io.File
import kotlin.math.sqrt

/** One case of `tests/android_demo/reference_updates.py`: a bundle, and what PyTorch made of it. */
internal class ReferenceCase(private val folder: File) {
    private val told = JSONObject(File(folder, "case.json").readText())

    val name: String = folder.name
    val steps = told.getLong("steps")
    val batchSize = told.getInt("batch_size")
    val seeds: List<Long> = told.getJSONArray("seeds").let { seeds -> List(seeds.length()) { seeds.getLong(it) } }
    val hyper: Map<String, Float> = told.getJSONObject("hyper").let { hyper ->
        hyper.keys().asSequence().map { it as String }.associateWith { hyper.getDouble(it).toFloat() }
    }
    val bundle: VerifiedBundle by lazy { verified(File(folder, "bundle")) }

    fun file(seed: Long, name: String) = File(folder, "$seed-$name.safetensors")

    fun tensors(seed: Long, name: String): Tensors = SafeTensors.read(file(seed, name), mostBytes = 1L shl 26)

    /** The weights that PyTorch came to. */
    fun trained(seed: Long): Weights = bundle.weights(file(seed, "trained"))

    /** The batches of one run, drawn here. */
    fun batches(seed: Long): Sequence<Batch> {
        val examples = tensors(seed, "examples")
        val (x, y) = examples.getValue("x") to examples.getValue("y")
        return Batches.of(x.shape[0].toInt(), steps, batchSize, seed).map { Batch(rows(x, it), rows(y, it)) }
    }

    companion object {
        val folder = File(System.getProperty("pocketfleet.bundles") ?: error("pocketfleet.bundles is not set"))

        fun of(name: String) = ReferenceCase(File(folder, name))

        fun verified(bundle: File): VerifiedBundle {
            val manifest = File(bundle, Manifest.FILE)
            return VerifiedBundle.verify(bundle, FileEntry(FileHash.of(manifest), manifest.length()))
        }
    }
}

/** The examples at [places]. */
internal fun rows(tensor: HostTensor, places: IntArray): HostTensor {
    val width = (tensor.data.capacity() / tensor.shape[0]).toInt()
    val shape = tensor.shape.clone().also { it[0] = places.size.toLong() }
    val taken = HostTensor.zeros(tensor.type, *shape)
    val (from, to) = tensor.values() to taken.values()
    for (place in places) {
        from.limit((place + 1) * width).position(place * width)
        to.put(from)
    }
    return taken
}

/** Before a device's first step; the correction is one hundredth in every value, as in the reference. */
internal fun started(bundle: VerifiedBundle): TrainState {
    val step = bundle.manifest.signature.trainStep
    val weights = bundle.firstWeights()
    fun of(role: Role, value: (TensorSpec) -> HostTensor) = step.inputs(role).associate { it.name to value(it) }
    return TrainState(
        weights = weights,
        // Adam's powers of beta are 1 before the first step.
        slots = of(Role.SLOT) { filled(it, if (it.name.endsWith("_power")) 1f else 0f) },
        anchor = of(Role.ANCHOR) { weights.trainable.getValue(it.name) },
        correction = of(Role.CORRECTION) { filled(it, 0.01f) },
    )
}

private fun filled(spec: TensorSpec, value: Float): HostTensor {
    val sizes = spec.sizes(1)
    return HostTensor.of(FloatArray(sizes.fold(1L, Long::times).toInt()) { value }, *sizes)
}

/** All of a run's steps; each step's loss is told. */
internal fun trained(trainer: ExecutorchTrainer, case: ReferenceCase, seed: Long): Weights {
    var state = started(case.bundle)
    for ((step, batch) in case.batches(seed).withIndex()) {
        val dice = Batches.dropoutSeed(seed, step.toLong())
        state = trainer.trainStep(state, batch, case.hyper, dice).state
    }
    return state.weights
}

/** How far the trained weights moved. */
internal fun delta(start: Tensors, end: Weights): Tensors = end.trainable.mapValues { (name, value) ->
    val (to, from) = value.floats() to start.getValue(name).floats()
    HostTensor.of(FloatArray(to.size) { to[it] - from[it] }, *value.shape)
}

/** The values of a tensor; counts of batches are whole numbers. */
internal fun numbers(tensor: HostTensor): DoubleArray = when (tensor.type) {
    ElementType.FLOAT32 -> tensor.floats().let { floats -> DoubleArray(floats.size) { floats[it].toDouble() } }
    ElementType.INT64 -> DoubleArray(tensor.count.toInt()) { tensor.values().getLong(it * Long.SIZE_BYTES).toDouble() }
    else -> error("no reference holds ${tensor.type}")
}

/** The norm of what two sets of tensors differ by, relative to the expected one's; over all tensors together. */
internal fun relativeError(found: Tensors, expected: Tensors): Double {
    check(found.keys == expected.keys) { "tensors ${found.keys}, expected ${expected.keys}" }
    var (off, whole) = 0.0 to 0.0
    for ((name, value) in expected) {
        check(found.getValue(name).shape.contentEquals(value.shape)) { "the shape of $name" }
        val (one, other) = numbers(found.getValue(name)) to numbers(value)
        for (place in one.indices) {
            val difference = one[place] - other[place]
            off += difference * difference
            whole += other[place] * other[place]
        }
    }
    check(whole > 0) { "the expected tensors are all zero" }
    return sqrt(off / whole)
}
