package org.pocketfleet.demo

import org.pocketfleet.core.ElementType

/** What this phone collects and learns; [word] is the task's name in a bundle's manifest. */
enum class DemoTask(val word: String, val shape: List<Long>, val targetType: ElementType, val targetShape: List<Long>) {
    /** Prices of houses from 13 figures of their neighbourhood: a row a house. */
    HOUSES("boston", listOf(13L), ElementType.FLOAT32, listOf(1L)),

    /** Which digit was drawn: 28 x 28 pixels, 0 to 9. */
    DIGITS("mnist", listOf(1L, DigitRaster.SIDE.toLong(), DigitRaster.SIDE.toLong()), ElementType.INT64, listOf()),
    ;

    /** Numbers that one example's input takes. */
    val values: Int get() = shape.fold(1L) { product, size -> product * size }.toInt()

    companion object {
        /** The task that a manifest calls [word]; null: none that this app collects examples of. */
        fun of(word: String): DemoTask? = entries.find { it.word == word }
    }
}
