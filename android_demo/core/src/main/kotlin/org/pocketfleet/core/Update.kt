package org.pocketfleet.core

/**
 * What a device reports under the codec `lossless`, side by side under their names: how far its weights moved, and its
 * batch-norm statistics as they are.
 *
 * `delta = device - server` (Reddi et al. 2021, arXiv:2003.00295, algorithm 1), each value rounded to the weights'
 * type.
 */
internal fun updateOf(downloaded: Weights, trained: Weights): Tensors {
    val delta = trained.trainable.mapValues { (name, value) -> difference(value, downloaded.trainable.getValue(name)) }
    return delta + trained.buffers
}

private fun difference(device: HostTensor, server: HostTensor): HostTensor {
    val delta = HostTensor.zeros(device.type, *device.shape)
    when (device.type) {
        ElementType.FLOAT32 -> {
            val (left, right, out) = listOf(device, server, delta).map { it.values().asFloatBuffer() }
            while (out.hasRemaining()) out.put(left.get() - right.get())
        }
        ElementType.FLOAT64 -> {
            val (left, right, out) = listOf(device, server, delta).map { it.values().asDoubleBuffer() }
            while (out.hasRemaining()) out.put(left.get() - right.get())
        }
        else -> throw GivenUp("the model trains ${device.type.manifestName}, this app trains float32 and float64")
    }
    return delta
}
