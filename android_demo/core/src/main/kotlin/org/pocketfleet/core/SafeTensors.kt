package org.pocketfleet.core

import java.io.File
import java.io.OutputStream

/** Tensors as safetensors: canonical bytes out, checked bytes in; never more in memory than the tensors themselves. */
object SafeTensors {
    /** How long the file of [tensors] is: 8 bytes, the header, the values. */
    fun size(tensors: Tensors): Long = TODO("size of $tensors")

    /** Write the canonical bytes: those of the Python library's `save` without metadata. [out] stays open. */
    fun write(tensors: Tensors, out: OutputStream): Unit = TODO("write $tensors to $out")

    /**
     * The tensors of a file, in the order of their names.
     *
     * @param mostBytes a longer file is refused before anything of it is held.
     * @throws FormatException it is no safetensors of types that phones compute with, or a longer one.
     */
    fun read(file: File, mostBytes: Long): Tensors = TODO("read $file up to $mostBytes")
}
