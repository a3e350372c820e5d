package org.pocketfleet.core

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The type of a tensor's values, as safetensors and as the manifest name it. */
enum class ElementType(val safetensorsName: String, val manifestName: String, val bytes: Int) {
    FLOAT64("F64", "float64", 8),
    FLOAT32("F32", "float32", 4),
    INT64("I64", "int64", 8),
    INT32("I32", "int32", 4),
    UINT8("U8", "uint8", 1),
    BOOL("BOOL", "bool", 1),
    ;

    companion object {
        /** The type that a manifest calls [name]; null: none that phones compute with. */
        fun ofManifest(name: String): ElementType? = entries.find { it.manifestName == name }

        /** The type that safetensors calls [name]; null: none that phones compute with. */
        fun ofSafetensors(name: String): ElementType? = entries.find { it.safetensorsName == name }
    }
}

/** Tensors by name. */
typealias Tensors = Map<String, HostTensor>

/**
 * A tensor in host memory: values row-major and little-endian in a direct buffer, which native runtimes read in place.
 *
 * [data] spans exactly the values; its position is never moved by those who read it.
 */
class HostTensor(val type: ElementType, val shape: LongArray, val data: ByteBuffer) {
    init {
        require(shape.all { it >= 0 }) { "sizes must be 0 or more, got ${shape.contentToString()}" }
        require(data.isDirect && data.order() == ByteOrder.LITTLE_ENDIAN) {
            "values must lie in a direct little-endian buffer"
        }
        require(data.capacity().toLong() == count * type.bytes) {
            "shape ${shape.contentToString()} of $type takes ${count * type.bytes} bytes, got ${data.capacity()}"
        }
    }

    /** How many values it holds. */
    val count: Long get() = shape.fold(1L) { product, size -> Math.multiplyExact(product, size) }

    private val places: IntRange get() = 0 until count.toInt()

    /** The values of a [ElementType.FLOAT32] tensor, copied. */
    fun floats(): FloatArray {
        check(type == ElementType.FLOAT32) { "the values are $type" }
        return FloatArray(count.toInt()).also { values().asFloatBuffer().get(it) }
    }

    /** The values of a [ElementType.UINT8] tensor, copied. */
    fun bytes(): ByteArray {
        check(type == ElementType.UINT8) { "the values are $type" }
        return ByteArray(count.toInt()).also { values().get(it) }
    }

    /** Whether every value is a finite number. */
    fun isFinite(): Boolean = when (type) {
        ElementType.FLOAT32 -> values().asFloatBuffer().let { all -> places.all { all[it].isFinite() } }
        ElementType.FLOAT64 -> values().asDoubleBuffer().let { all -> places.all { all[it].isFinite() } }
        else -> true
    }

    /** The values from the first on, for a reader of its own. */
    fun values(): ByteBuffer = data.duplicate().order(ByteOrder.LITTLE_ENDIAN).also(::fromTheFirst)

    companion object {
        /**
         * All of it is to be read or written, from the first byte on.
         *
         * A desktop's `ByteBuffer` has a `clear` of its own, which Android's published API lacks: [Buffer]'s is everywhere.
         */
        internal fun fromTheFirst(buffer: Buffer) {
            buffer.clear()
        }

        /** A tensor of zeros. */
        fun zeros(type: ElementType, vararg shape: Long): HostTensor {
            val bytes = shape.fold(type.bytes.toLong()) { product, size -> Math.multiplyExact(product, size) }
            val data = ByteBuffer.allocateDirect(Math.toIntExact(bytes)).order(ByteOrder.LITTLE_ENDIAN)
            return HostTensor(type, shape, data)
        }

        /** A tensor of floats. */
        fun of(values: FloatArray, vararg shape: Long): HostTensor =
            zeros(ElementType.FLOAT32, *shape).also { it.values().asFloatBuffer().put(values) }

        /** A tensor of whole numbers. */
        fun of(values: LongArray, vararg shape: Long): HostTensor =
            zeros(ElementType.INT64, *shape).also { it.values().asLongBuffer().put(values) }

        /** A flat tensor of bytes. */
        fun of(values: ByteArray): HostTensor =
            zeros(ElementType.UINT8, values.size.toLong()).also { it.values().put(values) }
    }
}
