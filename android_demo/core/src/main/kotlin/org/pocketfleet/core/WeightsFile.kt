package org.pocketfleet.core

import java.io.File
import java.io.IOException

/** A file of weights against what a program takes: the tensors of some [roles] of its inputs. */
internal class WeightsFile(step: MethodSignature, vararg roles: Role) {
    private val specs: Map<String, TensorSpec> = roles.flatMap(step::inputs).associateBy { it.name }

    /** How long such a file can be. */
    val mostBytes: Long = specs.values.fold(SafeTensors.HEADER_LIMIT_BYTES + LENGTH_BYTES) { sum, spec ->
        try {
            Math.addExact(sum, spec.shape.fold(spec.type.bytes.toLong(), Math::multiplyExact))
        } catch (e: ArithmeticException) {
            throw BundleException("signature: $spec is larger than any tensor", e)
        }
    }

    /**
     * The tensors by name, in the order of the inputs.
     *
     * @param whole whether all must be there.
     * @throws BundleException it holds others, or values that are no finite numbers.
     */
    fun read(file: File, whole: Boolean = true): Tensors {
        val tensors = try {
            SafeTensors.read(file, mostBytes)
        } catch (e: FormatException) {
            throw BundleException("${e.message}: it must be downloaded again", e)
        } catch (e: IOException) {
            throw BundleException("${file.name} cannot be read: ${e.message}", e)
        }
        for (name in if (whole) specs.keys + tensors.keys else tensors.keys) check(file, name, tensors[name])
        return specs.keys.filter { it in tensors }.associateWith(tensors::getValue)
    }

    private fun check(file: File, name: String, tensor: HostTensor?) {
        val spec = specs[name]
        if (spec?.type != tensor?.type || spec?.shape != tensor?.shape?.toList()) {
            val came = tensor?.let { "${it.type.manifestName} ${it.shape.contentToString()}" } ?: "none"
            throw BundleException(
                "${file.name}: tensor '$name' must be ${spec ?: "none"}, got $came: it is of another bundle",
            )
        }
        if (tensor?.isFinite() == false) {
            throw BundleException("${file.name}: tensor '$name' holds values that are no finite numbers")
        }
    }

    private companion object {
        const val LENGTH_BYTES = 8L
    }
}
