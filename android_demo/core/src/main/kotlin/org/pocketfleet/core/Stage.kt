package org.pocketfleet.core

/** A vector after a stage, and the bytes that travel beside it. */
internal class Staged(val vector: FloatArray, val side: ByteArray = ByteArray(0))

/**
 * What is done to a flat vector before its values are written; it can be gone back.
 *
 * `length` is always that of the vector before the stage, `seed` the one that all devices of a version share.
 */
internal interface Stage {
    /** Length of the vector after the stage. */
    fun madeLength(length: Int): Int

    /** How many bytes travel beside it. */
    fun sideBytes(length: Int): Int

    fun apply(vector: FloatArray, seed: Long): Staged

    /**
     * The vector before the stage, as far as it can be known.
     *
     * @throws FormatException [side] is nothing that [apply] makes.
     */
    fun undo(vector: FloatArray, side: ByteArray, seed: Long, length: Int): FloatArray
}
