package org.pocketfleet.trainer

import org.pocketfleet.core.ElementType
import org.pocketfleet.core.HostTensor
import org.pocketfleet.core.TensorSpec
import org.pytorch.executorch.DType
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Tensor
import java.nio.ByteOrder

/** Tensors between the app and ExecuTorch's Java classes: read in place on the way in, copied on the way out. */
internal object RuntimeTensors {
    private val DTYPES = mapOf(
        ElementType.FLOAT64 to DType.DOUBLE,
        ElementType.FLOAT32 to DType.FLOAT,
        ElementType.INT64 to DType.INT64,
        ElementType.INT32 to DType.INT32,
        ElementType.UINT8 to DType.UINT8,
    )

    /** @throws TrainerException the Java classes have no tensors of the type of [spec], though the runtime has. */
    fun checkType(spec: TensorSpec) {
        if (spec.type !in DTYPES) {
            throw TrainerException(
                "$spec cannot be passed: ExecuTorch's Java tensors are of ${DTYPES.keys.joinToString()}; " +
                    "export the model with another type there",
            )
        }
    }

    /** The runtime reads [tensor]'s buffer where it lies, which the value keeps alive. */
    fun input(tensor: HostTensor): EValue {
        check(ByteOrder.nativeOrder() == ByteOrder.LITTLE_ENDIAN) { "tensors are little-endian, this machine is not" }
        val (values, shape) = tensor.values() to tensor.shape
        return EValue.from(
            when (tensor.type) {
                ElementType.FLOAT64 -> Tensor.fromBlob(values.asDoubleBuffer(), shape)
                ElementType.FLOAT32 -> Tensor.fromBlob(values.asFloatBuffer(), shape)
                ElementType.INT64 -> Tensor.fromBlob(values.asLongBuffer(), shape)
                ElementType.INT32 -> Tensor.fromBlob(values.asIntBuffer(), shape)
                ElementType.UINT8 -> Tensor.fromBlobUnsigned(values, shape)
                ElementType.BOOL -> throw IllegalArgumentException("there are no Java tensors of ${tensor.type}")
            },
        )
    }

    /** A result copied out of the runtime's memory, which its next call writes over. */
    fun copied(value: EValue, type: ElementType): HostTensor {
        if (!value.isTensor) throw TrainerException("a program returned what is no tensor")
        val tensor = value.toTensor()
        if (tensor.dtype() != DTYPES[type]) {
            throw TrainerException("a program returned ${tensor.dtype()}, its signature says ${type.manifestName}")
        }
        val copy = HostTensor.zeros(type, *tensor.shape())
        val values = copy.values()
        when (type) {
            ElementType.FLOAT64 -> tensor.copyDataInto(values.asDoubleBuffer())
            ElementType.FLOAT32 -> tensor.copyDataInto(values.asFloatBuffer())
            ElementType.INT64 -> tensor.copyDataInto(values.asLongBuffer())
            ElementType.INT32 -> tensor.copyDataInto(values.asIntBuffer())
            ElementType.UINT8 -> tensor.copyDataIntoUnsigned(values)
            ElementType.BOOL -> error("there are no Java tensors of $type")
        }
        return copy
    }
}
