package org.pocketfleet.core

/** All of a tensor but its values. */
data class TensorKind(val type: ElementType, val shape: List<Long>) {
    /** How many values there are. */
    val count: Long get() = shape.fold(1L, Math::multiplyExact)

    val bytes: Long get() = Math.multiplyExact(count, type.bytes.toLong())

    /** As messages name it. */
    override fun toString(): String = "${type.manifestName} $shape"
}

/** The kinds of tensors by their names. */
internal fun Tensors.kinds(): Map<String, TensorKind> = mapValues { TensorKind(it.value.type, it.value.shape.toList()) }

/** Whether all values are finite numbers. */
internal fun Tensors.isFinite(): Boolean = values.all(HostTensor::isFinite)

/** @throws FormatException names, types or shapes of [tensors] are not those of [wanted]. */
internal fun checkKinds(tensors: Tensors, wanted: Map<String, TensorKind>) {
    val came = tensors.kinds()
    val name = (wanted.keys + came.keys).sortedWith(NameOrder).find { wanted[it] != came[it] } ?: return
    throw FormatException("tensor '$name' must be ${wanted[name] ?: "none"}, got ${came[name] ?: "none"}")
}
