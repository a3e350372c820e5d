package org.pocketfleet.core

/**
 * An update in few bytes: its delta as one flat vector through [stages], its values then as codes or as they are.
 *
 * | tensor | what |
 * |---|---|
 * | `delta/codes`, `delta/steps` | with [bits] of 8, 4 or 2: the packed codes, and a step a block |
 * | `delta/values` | with 0 bits: the values |
 * | `delta/places` | where the largest are kept: their places |
 * | others | what is reported beside the delta, every bit kept |
 *
 * @param stages in the order in which they are applied, one of them at most with bytes beside its vector.
 * @param errorFeedback values are rounded to the nearest level then, else by dice.
 */
internal class LossyCodec(
    private val stages: List<Stage>,
    private val bits: Int,
    override val errorFeedback: Boolean,
) : Codec {
    override fun check(like: Update) {
        for ((name, tensor) in like.delta) {
            if (tensor.type != ElementType.FLOAT32) {
                val type = tensor.type.manifestName
                throw GivenUp("the service asks for a codec of float32 weights, its model's weight '$name' is $type")
            }
        }
    }

    override fun kinds(like: Update): Map<String, TensorKind> {
        val shape = Shape(like)
        return shape.kinds().beside(like.beside.kinds())
    }

    override fun encode(update: Update, seeds: Seeds): Tensors {
        val shape = Shape(update)
        var vector = shape.flat.of(update.delta)
        var places = ByteArray(0)
        for (stage in stages) {
            val staged = stage.apply(vector, seeds.shared)
            vector = staged.vector
            if (staged.side.isNotEmpty()) places = staged.side
        }
        val coded = shape.coded.encoded(vector, if (errorFeedback) null else seeds.own)
        val beside = if (places.isEmpty()) emptyMap() else mapOf(PLACES to HostTensor.of(places))
        return (coded + beside).beside(update.beside)
    }

    override fun decode(body: Tensors, like: Update, sharedSeed: Long): Update {
        checkKinds(body, kinds(like))
        val shape = Shape(like)
        var vector = shape.coded.decoded(body)
        val places = body[PLACES]?.bytes() ?: ByteArray(0)
        for ((stage, length) in stages.zip(shape.lengths).asReversed()) {
            vector = stage.undo(vector, places, sharedSeed, length)
        }
        return Update(shape.flat.tensors(vector), body.filterKeys { it in like.beside })
    }

    /** What follows from the shapes of an update's delta. */
    private inner class Shape(like: Update) {
        val flat = FlatVector(like.delta.kinds())

        /** Of the vector before each stage, and after the last. */
        val lengths = stages.runningFold(flat.length) { length, stage -> stage.madeLength(length) }
        val coded = CodedVector(Blocks(if (stages.isEmpty()) flat.pieces else lengths.takeLast(1)), bits, PREFIX)

        fun kinds(): Map<String, TensorKind> {
            val places = stages.zip(lengths).sumOf { (stage, length) -> stage.sideBytes(length).toLong() }
            if (places == 0L) return coded.kinds()
            return coded.kinds() + (PLACES to TensorKind(ElementType.UINT8, listOf(places)))
        }
    }

    private companion object {
        const val PREFIX = "delta/"
        const val PLACES = "delta/places"
    }
}
