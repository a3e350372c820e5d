package org.pocketfleet.trainer

import org.pocketfleet.core.Batch
import org.pocketfleet.core.Draws
import org.pocketfleet.core.ElementType
import org.pocketfleet.core.HostTensor
import org.pocketfleet.core.MethodSignature
import org.pocketfleet.core.Role
import org.pocketfleet.core.Signature
import org.pocketfleet.core.StepResult
import org.pocketfleet.core.Tensors
import org.pocketfleet.core.TensorSpec
import org.pocketfleet.core.TrainState
import org.pocketfleet.core.Trainer
import org.pocketfleet.core.VerifiedBundle
import org.pocketfleet.core.Weights
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module

/**
 * A bundle's `model.pte` in ExecuTorch.
 *
 * The programs hold no weights: every call passes them, flat, in the order of the signature. They are read where they
 * lie; results are copied, since the runtime gives the same memory to its next call.
 *
 * Calls throw [IllegalArgumentException] for tensors that are not those of the signature or a batch that is too large,
 * [IllegalStateException] after [close], [TrainerException] if the runtime refuses.
 */
class ExecutorchTrainer private constructor(
    private val module: Module,
    private val signature: Signature,
    private val maxBatch: Int,
) : Trainer {
    private var closed = false

    override fun trainStep(state: TrainState, batch: Batch, hyper: Map<String, Float>, dropoutSeed: Long): StepResult {
        val step = signature.trainStep
        val size = checkedSize(batch.x)
        var site = 0
        val outputs = run("train_step", step, size) { spec ->
            when (spec.role) {
                Role.SLOT -> named(spec, state.slots)
                Role.ANCHOR -> named(spec, state.anchor)
                Role.CORRECTION -> named(spec, state.correction)
                Role.HYPER -> scalar(spec, hyper)
                Role.UNIFORM -> uniform(spec, size, dropoutSeed, site++)
                else -> modelInput(spec, state.weights, batch.x, batch.y)
            }
        }
        fun after(role: Role): Tensors = step.outputs.zip(outputs)
            .filter { (spec, _) -> spec.role == role }
            .associate { (spec, tensor) -> spec.name to tensor }
        val weights = Weights(after(Role.TRAINABLE), after(Role.BUFFER), state.weights.frozen)
        val next = TrainState(weights, after(Role.SLOT), state.anchor, state.correction)
        return StepResult(number(outputs.first()), next)
    }

    override fun predict(weights: Weights, x: HostTensor): HostTensor =
        run("predict", signature.predict, checkedSize(x)) { modelInput(it, weights, x, null) }.single()

    override fun evaluate(weights: Weights, batch: Batch): Map<String, Float> {
        val method = signature.evaluate
        val outputs = run("evaluate", method, checkedSize(batch.x)) { modelInput(it, weights, batch.x, batch.y) }
        return method.outputs.zip(outputs).associate { (spec, tensor) -> spec.name to number(tensor) }
    }

    override fun close() {
        if (!closed) module.destroy()
        closed = true
    }

    /** The size of a batch, found to be one that memory was planned for. */
    private fun checkedSize(x: HostTensor): Long {
        val size = x.shape.firstOrNull() ?: 0
        require(size in 1..maxBatch) { "a batch holds 1 to $maxBatch examples in this bundle, got $size" }
        return size
    }

    private fun modelInput(spec: TensorSpec, weights: Weights, x: HostTensor, y: HostTensor?): HostTensor =
        when (spec.role) {
            Role.TRAINABLE -> named(spec, weights.trainable)
            Role.BUFFER -> named(spec, weights.buffers)
            Role.FROZEN -> named(spec, weights.frozen)
            Role.X -> x
            Role.Y -> requireNotNull(y) { "$spec is not given" }
            else -> throw IllegalArgumentException("no method takes $spec")
        }

    private fun named(spec: TensorSpec, tensors: Tensors): HostTensor =
        requireNotNull(tensors[spec.name]) { "$spec is not given; there are ${tensors.keys}" }

    private fun scalar(spec: TensorSpec, hyper: Map<String, Float>): HostTensor {
        val value = requireNotNull(hyper[spec.name]) { "$spec is not given; there are ${hyper.keys}" }
        return HostTensor.of(floatArrayOf(value))
    }

    private fun uniform(spec: TensorSpec, batch: Long, seed: Long, site: Int): HostTensor {
        val sizes = spec.sizes(batch)
        val count = Math.toIntExact(sizes.fold(1L, Math::multiplyExact))
        return HostTensor.of(Draws.dropoutNumbers(seed, site, count), *sizes)
    }

    private fun run(
        name: String,
        method: MethodSignature,
        batch: Long,
        input: (TensorSpec) -> HostTensor,
    ): List<HostTensor> {
        check(!closed) { "the trainer was closed" }
        // The runtime reads their buffers while it runs: they must outlive the call, which their holding here does.
        val inputs = method.inputs.map { spec -> input(spec).also { checkInput(name, spec, it, batch) } }
        val outputs = execute(name, inputs.map(RuntimeTensors::input).toTypedArray())
        if (outputs.size != method.outputs.size) {
            throw TrainerException("$name returned ${outputs.size} tensors, its signature has ${method.outputs.size}")
        }
        return method.outputs.zip(outputs) { spec, value ->
            RuntimeTensors.copied(value, spec.type).also { checkOutput(name, spec, it, batch) }
        }
    }

    private fun execute(name: String, inputs: Array<EValue>): Array<EValue> = try {
        module.execute(name, *inputs)
    } catch (e: RuntimeException) {
        throw refused("ExecuTorch refused to run $name", module, e)
    }

    private fun checkInput(name: String, spec: TensorSpec, tensor: HostTensor, batch: Long) {
        require(tensor.type == spec.type && tensor.shape.contentEquals(spec.sizes(batch))) {
            "$name takes $spec, at a batch of $batch; got ${described(tensor)}"
        }
    }

    private fun checkOutput(name: String, spec: TensorSpec, tensor: HostTensor, batch: Long) {
        val same = tensor.shape.contentEquals(spec.sizes(batch))
        // A model may put its batch anywhere, and several times over, which a signature cannot say.
        if (!same && !(spec.role == Role.OUTPUT && tensor.shape.size == spec.shape.size)) {
            throw TrainerException("$name returned ${described(tensor)}, not $spec: it is another bundle's program")
        }
    }

    companion object {
        private val METHODS = listOf("train_step", "predict", "evaluate")

        // The last lines say why; those before may be of other calls.
        private const val LOG_LINES = 3

        /**
         * Load the programs of [bundle].
         *
         * @param threads of the whole process's runtime from now on; 0 leaves as many as there are.
         * @throws TrainerException the runtime cannot load them, or its Java classes lack a type that they take.
         */
        fun open(bundle: VerifiedBundle, threads: Int = 0): ExecutorchTrainer {
            require(threads >= 0) { "threads must be 0 (as it is) or more, got $threads" }
            val signature = bundle.manifest.signature
            for (method in listOf(signature.trainStep, signature.predict, signature.evaluate)) {
                (method.inputs + method.outputs).forEach(RuntimeTensors::checkType)
            }
            val module = load(bundle, threads)
            try {
                // All now, and not after an hour of training.
                METHODS.forEach(module::loadMethod)
            } catch (e: RuntimeException) {
                val refusal = refused("ExecuTorch cannot load the methods of ${bundle.program.name}", module, e)
                module.destroy()
                throw refusal
            }
            return ExecutorchTrainer(module, signature, bundle.manifest.maxBatch)
        }

        private fun load(bundle: VerifiedBundle, threads: Int): Module = try {
            Module.load(bundle.program.path, Module.LOAD_MODE_FILE, threads)
        } catch (e: RuntimeException) {
            val wanted = bundle.manifest.minimumRuntime["executorch"]
            throw TrainerException(
                "ExecuTorch cannot load ${bundle.program.name}, which needs version $wanted or later: ${e.message}",
                e,
            )
        }

        private fun refused(what: String, module: Module, e: RuntimeException): TrainerException {
            val log = module.readLogBuffer().toList().takeLast(LOG_LINES)
            return TrainerException((listOf("$what: ${e.message}") + log).joinToString("; "), e)
        }

        private fun described(tensor: HostTensor) = "${tensor.type.manifestName} ${tensor.shape.contentToString()}"

        private fun number(tensor: HostTensor): Float {
            val values = tensor.values()
            return when (tensor.type) {
                ElementType.FLOAT32 -> values.getFloat(0)
                ElementType.FLOAT64 -> values.getDouble(0).toFloat()
                else -> throw TrainerException("a loss or metric must be of floats, got ${described(tensor)}")
            }
        }
    }
}
