package org.pocketfleet.core

/**
 * What a device reports: [delta], how far its weights moved, and [beside] it what keeps every bit, such as batch-norm
 * statistics.
 */
internal class Update(val delta: Tensors, val beside: Tensors) {
    fun isFinite(): Boolean = delta.isFinite() && beside.isFinite()

    companion object {
        /**
         * That of a training.
         *
         * `delta = device - server` (Reddi et al. 2021, arXiv:2003.00295, algorithm 1), each value rounded to the
         * weights' type.
         */
        fun of(downloaded: Weights, trained: Weights): Update {
            val delta = trained.trainable.mapValues { (name, value) ->
                difference(value, downloaded.trainable.getValue(name))
            }
            return Update(delta, trained.buffers)
        }
    }
}

/** `left - right`, value by value. */
internal fun difference(left: HostTensor, right: HostTensor): HostTensor =
    combined(left, right, { one, other -> one - other }, { one, other -> one - other })

/** `left + right`, value by value. */
internal fun sum(left: HostTensor, right: HostTensor): HostTensor =
    combined(left, right, { one, other -> one + other }, { one, other -> one + other })

private inline fun combined(
    left: HostTensor,
    right: HostTensor,
    floats: (Float, Float) -> Float,
    doubles: (Double, Double) -> Double,
): HostTensor {
    val result = HostTensor.zeros(left.type, *left.shape)
    when (left.type) {
        ElementType.FLOAT32 -> {
            val (one, other, out) = listOf(left, right, result).map { it.values().asFloatBuffer() }
            while (out.hasRemaining()) out.put(floats(one.get(), other.get()))
        }
        ElementType.FLOAT64 -> {
            val (one, other, out) = listOf(left, right, result).map { it.values().asDoubleBuffer() }
            while (out.hasRemaining()) out.put(doubles(one.get(), other.get()))
        }
        else -> throw GivenUp("the model trains ${left.type.manifestName}, this app trains float32 and float64")
    }
    return result
}
