package org.pocketfleet.core

/** What an encoding draws from: a seed that all devices of a version share, and one of the device's own. */
internal class Seeds(val shared: Long, val own: Long)

/** How an update becomes the tensors of a report's body, and back; how long that is follows from shapes alone. */
internal interface Codec {
    /** Whether the device keeps what an update does not say, see [ErrorFeedback]. */
    val errorFeedback: Boolean

    /**
     * Whether updates like this one can be encoded.
     *
     * @throws GivenUp they cannot.
     */
    fun check(like: Update)

    /** Names, types and shapes of the body of an update like this one. */
    fun kinds(like: Update): Map<String, TensorKind>

    /** The body; of values that are not finite, or too large to be computed with, one of its tensors is not either. */
    fun encode(update: Update, seeds: Seeds): Tensors

    /**
     * The update that [body] says, as who receives it decodes it.
     *
     * @throws FormatException it is no body of an update like [like].
     */
    fun decode(body: Tensors, like: Update, sharedSeed: Long): Update
}

/** Every bit kept: deltas, and what is reported beside them, under their own names. */
internal object LosslessCodec : Codec {
    override val errorFeedback = false

    override fun check(like: Update) = Unit

    override fun kinds(like: Update): Map<String, TensorKind> = like.delta.kinds().beside(like.beside.kinds())

    override fun encode(update: Update, seeds: Seeds): Tensors = update.delta.beside(update.beside)

    override fun decode(body: Tensors, like: Update, sharedSeed: Long): Update {
        checkKinds(body, kinds(like))
        return Update(body.filterKeys { it in like.delta }, body.filterKeys { it in like.beside })
    }
}

/** Both, which have no name in common. */
internal fun <T> Map<String, T>.beside(others: Map<String, T>): Map<String, T> {
    val twice = keys.find { it in others }
    require(twice == null) { "an update holds two tensors of the name '$twice'" }
    return this + others
}
