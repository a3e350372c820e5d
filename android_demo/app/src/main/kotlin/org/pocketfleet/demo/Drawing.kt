package org.pocketfleet.demo

/** What a finger drew, stroke by stroke. */
class Drawing {
    private val drawn = mutableListOf<MutableList<Touch>>()

    /** No stroke is empty. */
    val strokes: List<List<Touch>> get() = drawn.map { it.toList() }

    /** All of it in one array: for each stroke the number of its touches, then their x and y. */
    val kept: FloatArray
        get() = drawn.flatMap { stroke -> listOf(stroke.size.toFloat()) + stroke.flatMap { listOf(it.x, it.y) } }
            .toFloatArray()

    /** The finger comes down. */
    fun begin(touch: Touch) {
        drawn += mutableListOf(touch)
    }

    /** It goes on to there; nothing where it never came down, as after a wipe under the finger. */
    fun go(touch: Touch) {
        drawn.lastOrNull()?.add(touch)
    }

    /** Wipe it. */
    fun clear() = drawn.clear()

    /** Draw what was [kept], and nothing else. */
    fun restore(kept: FloatArray) {
        clear()
        var place = 0
        while (place < kept.size) {
            val touches = kept[place].toInt()
            drawn += MutableList(touches) { Touch(kept[place + 1 + 2 * it], kept[place + 2 + 2 * it]) }
            place += 1 + 2 * touches
        }
    }
}
