package org.pocketfleet.core

/** A report's [body], and the [residual] that the device keeps once it counts; empty: it keeps none. */
internal class Said(val body: Tensors, val residual: Tensors)

/**
 * What an update did not say is kept on the device and added to its next one.
 *
 * 1. A residual holds a tensor a weight that is reported, zeros before the first report. Another model's is none.
 * 2. Encoded is `delta + residual`; the next residual is that sum minus what the body says, as who receives it decodes
 *    it. All float32, each operation rounded.
 * 3. A report that does not count leaves the residual as it was; so does an update that is not finite.
 *
 * Source: Stich et al. 2018, arXiv:1809.07599, algorithm 1; Karimireddy et al. 2019, arXiv:1901.09847, algorithm 2.
 */
internal object ErrorFeedback {
    /**
     * What a device says of [update] under [codec]; null: it is not finite.
     *
     * @param kept its residual, which a codec without error feedback does not ask for.
     */
    fun said(codec: Codec, update: Update, kept: Tensors, seeds: Seeds): Said? {
        val wanted = if (codec.errorFeedback) compensated(update, kept) else update
        if (!wanted.isFinite()) return null
        val body = codec.encode(wanted, seeds)
        if (!body.isFinite()) return null
        if (!codec.errorFeedback) return Said(body, emptyMap())
        val sent = codec.decode(body, update, seeds.shared)
        if (!sent.isFinite()) return null
        return Said(body, residualAfter(wanted, sent))
    }

    /** Rule 2: the next residual, from what was encoded and what it says. */
    fun residualAfter(wanted: Update, sent: Update): Tensors =
        wanted.delta.mapValues { (name, value) -> difference(value, sent.delta.getValue(name)) }

    /** Rule 2: what is encoded. */
    fun compensated(update: Update, kept: Tensors): Update {
        val residual = if (kept.kinds() == update.delta.kinds()) kept
        else update.delta.mapValues { (_, value) -> HostTensor.zeros(value.type, *value.shape) }
        return Update(update.delta.mapValues { (name, value) -> sum(value, residual.getValue(name)) }, update.beside)
    }
}
