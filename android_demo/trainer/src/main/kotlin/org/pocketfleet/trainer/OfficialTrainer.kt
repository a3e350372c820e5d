package org.pocketfleet.trainer

import org.pocketfleet.core.Batch
import org.pocketfleet.core.ElementType
import org.pocketfleet.core.HostTensor
import org.pocketfleet.core.Tensors
import org.pocketfleet.core.VerifiedBundle
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Tensor
import org.pytorch.executorch.training.SGD
import org.pytorch.executorch.training.TrainingModule
import java.io.Closeable

/** The terms of ExecuTorch's own SGD; those of `torch.optim.SGD`. */
data class SgdTerms(
    val learningRate: Double,
    val momentum: Double = 0.0,
    val dampening: Double = 0.0,
    val weightDecay: Double = 0.0,
    val nesterov: Boolean = false,
)

/**
 * A bundle's `training_module.pte` in ExecuTorch's own trainer.
 *
 * It differs from [ExecutorchTrainer] in that the program holds the weights: it starts from the bundle's first ones and
 * from no others, there is no prediction by what was learnt, no other optimizer than SGD, and every batch holds exactly
 * the bundle's `max_batch` examples. Not to be called from two threads at once.
 */
class OfficialTrainer private constructor(
    private val module: TrainingModule,
    private val sgd: SGD,
    private val batchSize: Int,
) : Closeable {
    private var closed = false

    /**
     * One step in place; the mean loss before it.
     *
     * @throws IllegalArgumentException the batch is of another size.
     * @throws TrainerException the runtime refuses.
     */
    fun step(batch: Batch): Float {
        check(!closed) { "the trainer was closed" }
        val size = batch.x.shape.firstOrNull() ?: 0
        require(size == batchSize.toLong()) { "a batch holds exactly $batchSize examples in this program, got $size" }
        return ask("refused a step") {
            val (x, y) = RuntimeTensors.input(batch.x) to RuntimeTensors.input(batch.y)
            val loss = module.executeForwardBackward(METHOD, x, y).single()
            // Copied before the optimizer touches the memory that it lies beside.
            val number = RuntimeTensors.copied(loss, ElementType.FLOAT32).floats().single()
            sgd.step(module.namedGradients(METHOD))
            number
        }
    }

    /** The weights as they are now, copied, by the model's own names. */
    fun weights(): Tensors {
        check(!closed) { "the trainer was closed" }
        return ask("does not give its weights") { own(module.namedParameters(METHOD)) }
    }

    override fun close() {
        // The optimizer reaches into the module's memory; after this nothing steps it.
        if (!closed) module.close()
        closed = true
    }

    companion object {
        private const val METHOD = "forward"

        // The exporter wraps the model with its loss.
        private const val PREFIX = "model."

        /**
         * Load the joint graph of [bundle].
         *
         * @throws IllegalArgumentException the bundle has none.
         * @throws TrainerException the runtime cannot load it.
         */
        fun open(bundle: VerifiedBundle, terms: SgdTerms): OfficialTrainer {
            val program = requireNotNull(bundle.trainingModule) {
                "the bundle has no training module: export it with --training-module"
            }
            val module = ask("cannot load ${program.name}") { TrainingModule.load(program.path) }
            try {
                val sgd = ask("makes no optimizer for ${program.name}") { sgd(module, terms) }
                return OfficialTrainer(module, sgd, bundle.manifest.maxBatch)
            } catch (e: TrainerException) {
                module.close()
                throw e
            }
        }

        private fun sgd(module: TrainingModule, terms: SgdTerms): SGD = SGD.create(
            module.namedParameters(METHOD),
            terms.learningRate,
            terms.momentum,
            terms.dampening,
            terms.weightDecay,
            terms.nesterov,
        )

        private fun own(tensors: Map<String, Tensor>): Tensors = tensors.entries.associate { (name, tensor) ->
            val copy: HostTensor = RuntimeTensors.copied(EValue.from(tensor), ElementType.FLOAT32)
            name.removePrefix(PREFIX) to copy
        }

        private fun <T> ask(what: String, call: () -> T): T = try {
            call()
        } catch (e: RuntimeException) {
            throw TrainerException("ExecuTorch $what: ${e.message}", e)
        }
    }
}
