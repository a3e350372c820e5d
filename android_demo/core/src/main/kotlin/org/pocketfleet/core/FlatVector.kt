package org.pocketfleet.core

/** A model's float32 tensors as one vector: in the order of their names, each row by row. */
internal class FlatVector(private val kinds: Map<String, TensorKind>) {
    private val names = kinds.keys.sortedWith(NameOrder)

    /** How many values each tensor has, in the vector's order. */
    val pieces: List<Int> = names.map { Math.toIntExact(kinds.getValue(it).count) }

    val length: Int = pieces.fold(0, Math::addExact)

    /** The vector of [tensors], copied. */
    fun of(tensors: Tensors): FloatArray {
        val vector = FloatArray(length)
        var start = 0
        for ((name, count) in names.zip(pieces)) {
            tensors.getValue(name).values().asFloatBuffer().get(vector, start, count)
            start += count
        }
        return vector
    }

    /** The tensors of [vector], copied. */
    fun tensors(vector: FloatArray): Tensors {
        var start = 0
        return names.zip(pieces).associate { (name, count) ->
            val values = vector.copyOfRange(start, start + count)
            start += count
            name to HostTensor.of(values, *kinds.getValue(name).shape.toLongArray())
        }
    }
}
