package org.pocketfleet.core

/**
 * An assignment that its bundle can do: how many steps from which state, with which hyper-parameters.
 *
 * FedAvg adds nothing to a step, FedProx (Li et al. 2020, arXiv:1812.06127, equation 2) a pull to the downloaded
 * weights of the strength `proximal_mu`. The other algorithms keep or send more than this app does, and are refused.
 */
internal class TrainingPlan private constructor(
    val assignment: Assignment,
    val bundle: VerifiedBundle,
    val downloaded: Weights,
    val split: ExampleSplit,
    val steps: Long,
    val hyper: Map<String, Float>,
    val codec: Codec,
) {
    /** The metric that is reported: the first; null: the model has none. */
    val metric: String? get() = bundle.manifest.signature.evaluate.outputs(Role.METRIC).firstOrNull()?.name

    /** Before the first step. */
    fun start(): TrainState = TrainState.first(bundle.manifest.signature.trainStep, downloaded)

    companion object {
        /** What this app runs. */
        val ALGORITHMS = listOf("fedavg", "fedprox")

        private const val PROXIMAL_MU = "proximal_mu"

        /**
         * What can be refused before anything is downloaded.
         *
         * @throws GivenUp the service asks for something that this app does not do.
         */
        fun checkAbilities(assignment: Assignment, programs: Set<String>) {
            if (assignment.algorithm !in ALGORITHMS) {
                refuse("the algorithm ${assignment.algorithm}", "has ${ALGORITHMS.joinToString(" and ")}")
            }
            CodecByName.of(assignment.codec, assignment.codecOptions)
            val bits = assignment.downloadBits
            if (bits != 0 && bits !in Quantisation.BITS) refuse("weights of $bits bits", "reads 8, 4, 2 or all")
            checkProgram(assignment.program, programs)
        }

        /** @throws GivenUp this app does not run it. */
        fun checkProgram(program: String, programs: Set<String>) {
            if (program !in programs) refuse("the program $program", "runs ${programs.joinToString()}")
        }

        /**
         * The plan of an assignment.
         *
         * @throws GivenUp bundle, weights and assignment are not of one experiment.
         */
        fun of(assignment: Assignment, bundle: VerifiedBundle, downloaded: Weights, split: ExampleSplit): TrainingPlan {
            val manifest = bundle.manifest
            if (assignment.batchSize !in 1..manifest.maxBatch) {
                refuse("batches of ${assignment.batchSize}", "has programs that take 1 to ${manifest.maxBatch}")
            }
            val codec = CodecByName.of(assignment.codec, assignment.codecOptions)
            // Of the names and shapes of what will be reported.
            val like = Update(downloaded.trainable, downloaded.buffers)
            codec.check(like)
            val bytes = SafeTensors.size(codec.kinds(like))
            if (bytes != assignment.updateBytes) {
                refuse("an update of ${assignment.updateBytes} bytes", "has a model whose update takes $bytes")
            }
            val steps = if (assignment.steps > 0) assignment.steps
            else Batches.stepsOfEpochs(split.training.size, assignment.epochs, assignment.batchSize)
            if (steps < 1) refuse("$steps steps", "trains for 1 or more")
            val hyper = hyper(assignment, manifest.settings)
            return TrainingPlan(assignment, bundle, downloaded, split, steps, hyper, codec)
        }

        private fun hyper(assignment: Assignment, settings: StepSettings): Map<String, Float> {
            val given = assignment.hyper.toMutableMap()
            if (assignment.algorithm == "fedprox") {
                val strength = assignment.algorithmOptions[PROXIMAL_MU] as? Number
                    ?: refuse("fedprox without its option $PROXIMAL_MU", "needs it")
                if (!settings.proximal) refuse("fedprox", "has a program without the proximal term")
                given[PROXIMAL_MU] = strength.toDouble()
            }
            return settings.hyperNames.associateWith { name ->
                (given[name] ?: refuse("a step without $name", "has a program that takes it")).toFloat()
            }
        }

        private fun refuse(asked: String, has: String): Nothing =
            throw GivenUp("the service asks for $asked, this app $has")
    }
}
