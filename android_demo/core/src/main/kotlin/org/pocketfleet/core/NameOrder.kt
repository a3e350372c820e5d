package org.pocketfleet.core

/** The order of tensors' names on the wire: by code points, as UTF-8's bytes and Python's texts; Kotlin's differs. */
internal object NameOrder : Comparator<String> {
    override fun compare(one: String, other: String): Int {
        val (left, right) = one.toByteArray() to other.toByteArray()
        for (place in 0 until minOf(left.size, right.size)) {
            val difference = (left[place].toInt() and 0xff) - (right[place].toInt() and 0xff)
            if (difference != 0) return difference
        }
        return left.size - right.size
    }
}
