#include "values.h"

#include <limits>

#include <executorch/runtime/core/exec_aten/util/scalar_type_util.h>

#include "java.h"

namespace pocketfleet {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::extension::TensorPtr;
using executorch::runtime::EValue;

namespace {

// EValue's own codes (its private constants TYPE_CODE_*).
enum class JavaType : jint { None = 0, Tensor = 1, String = 2, Double = 3, Int = 4, Bool = 5 };

std::vector<SizesType> sizes_of(JNIEnv* env, jobject tensor) {
  auto shape = static_cast<jlongArray>(env->GetObjectField(tensor, java.tensor_shape));
  std::vector<jlong> sizes(env->GetArrayLength(shape));
  env->GetLongArrayRegion(shape, 0, static_cast<jsize>(sizes.size()), sizes.data());
  for (jlong size : sizes) {
    if (size < 0 || size > std::numeric_limits<SizesType>::max()) {
      throw_java(env, "java/lang/IllegalArgumentException", "no tensor has a dimension of " + std::to_string(size));
    }
  }
  return {sizes.begin(), sizes.end()};
}

jobject java_value(JNIEnv* env, const EValue& value) {
  if (value.isTensor()) {
    jobject tensor = java_tensor(env, value.toTensor());
    return env->CallStaticObjectMethod(java.evalue, java.evalue_of_tensor, tensor);
  }
  if (value.isInt()) {
    return env->CallStaticObjectMethod(java.evalue, java.evalue_of_int, static_cast<jlong>(value.toInt()));
  }
  if (value.isDouble()) {
    return env->CallStaticObjectMethod(java.evalue, java.evalue_of_double, static_cast<jdouble>(value.toDouble()));
  }
  if (value.isBool()) {
    return env->CallStaticObjectMethod(java.evalue, java.evalue_of_bool, static_cast<jboolean>(value.toBool()));
  }
  if (value.isString()) {
    auto characters = value.toString();
    jstring string = java_text(env, std::string(characters.data(), characters.size()));
    return env->CallStaticObjectMethod(java.evalue, java.evalue_of_string, string);
  }
  if (value.isNone()) {
    return env->CallStaticObjectMethod(java.evalue, java.evalue_none);
  }
  throw_java(env, "java/lang/UnsupportedOperationException", "a result is neither tensor, number, text nor none");
}

}  // namespace

TensorPtr native_tensor(JNIEnv* env, jobject tensor) {
  LocalFrame frame(env);
  if (tensor == nullptr) {
    throw_java(env, "java/lang/NullPointerException", "a tensor is null");
  }
  auto type = static_cast<ScalarType>(checked(env, env->CallIntMethod(tensor, java.tensor_dtype)));
  std::vector<SizesType> sizes = sizes_of(env, tensor);
  jobject buffer = checked(env, env->CallObjectMethod(tensor, java.tensor_buffer));
  void* data = buffer == nullptr ? nullptr : env->GetDirectBufferAddress(buffer);
  jlong count = 1;
  for (SizesType size : sizes) {
    count *= size;
  }
  // Of a typed buffer, the capacity counts values.
  if (data == nullptr || env->GetDirectBufferCapacity(buffer) != count) {
    throw_java(env, "java/lang/IllegalArgumentException",
               "a tensor's buffer must be direct and hold " + std::to_string(count) + " values");
  }
  return executorch::extension::from_blob(data, std::move(sizes), type);
}

jobject java_tensor(JNIEnv* env, const executorch::aten::Tensor& tensor) {
  std::vector<jlong> sizes(tensor.sizes().begin(), tensor.sizes().end());
  jlongArray shape = checked(env, env->NewLongArray(static_cast<jsize>(sizes.size())));
  env->SetLongArrayRegion(shape, 0, static_cast<jsize>(sizes.size()), sizes.data());
  // Without values there may be no memory, and a buffer must have an address.
  static char nowhere;
  void* data = tensor.nbytes() == 0 ? &nowhere : tensor.mutable_data_ptr();
  jobject bytes = checked(env, env->NewDirectByteBuffer(data, static_cast<jlong>(tensor.nbytes())));
  jobject ordered = checked(env, env->CallObjectMethod(bytes, java.buffer_order, java.little_endian));
  return checked(env, env->CallStaticObjectMethod(java.tensor, java.tensor_of_native, ordered, shape,
                                                  static_cast<jint>(tensor.scalar_type()), nullptr));
}

Arguments::Arguments(JNIEnv* env, jobjectArray values) {
  jsize count = values == nullptr ? 0 : env->GetArrayLength(values);
  for (jsize index = 0; index < count; ++index) {
    LocalFrame frame(env);
    jobject value = env->GetObjectArrayElement(values, index);
    if (value == nullptr) {
      throw_java(env, "java/lang/NullPointerException", "argument " + std::to_string(index) + " is null");
    }
    switch (static_cast<JavaType>(env->GetIntField(value, java.evalue_type))) {
      case JavaType::Tensor:
        tensors_.push_back(native_tensor(env, checked(env, env->CallObjectMethod(value, java.evalue_tensor))));
        values_.emplace_back(tensors_.back());
        break;
      case JavaType::Double:
        values_.emplace_back(static_cast<double>(checked(env, env->CallDoubleMethod(value, java.evalue_double))));
        break;
      case JavaType::Int:
        values_.emplace_back(static_cast<int64_t>(checked(env, env->CallLongMethod(value, java.evalue_int))));
        break;
      case JavaType::Bool:
        values_.emplace_back(checked(env, env->CallBooleanMethod(value, java.evalue_bool)) == JNI_TRUE);
        break;
      case JavaType::None:
        values_.emplace_back();
        break;
      default:
        throw_java(env, "java/lang/IllegalArgumentException",
                   "argument " + std::to_string(index) + " is of a type that no program takes");
    }
  }
}

jobjectArray java_values(JNIEnv* env, const std::vector<EValue>& values, size_t count) {
  jobjectArray array = checked(env, env->NewObjectArray(static_cast<jsize>(count), java.evalue, nullptr));
  for (size_t index = 0; index < count; ++index) {
    LocalFrame frame(env);
    jobject value = checked(env, java_value(env, values.at(index)));
    env->SetObjectArrayElement(array, static_cast<jsize>(index), value);
    check(env);
  }
  return array;
}

jobjectArray java_strings(JNIEnv* env, const std::vector<std::string>& values) {
  jobjectArray array = checked(env, env->NewObjectArray(static_cast<jsize>(values.size()), java.string, nullptr));
  for (size_t index = 0; index < values.size(); ++index) {
    LocalFrame frame(env);
    env->SetObjectArrayElement(array, static_cast<jsize>(index), java_text(env, values[index]));
    check(env);
  }
  return array;
}

TensorsByName native_tensors(JNIEnv* env, jobject map) {
  TensorsByName tensors;
  LocalFrame frame(env);
  if (map == nullptr) {
    throw_java(env, "java/lang/NullPointerException", "the tensors are null");
  }
  jobject entries = checked(env, env->CallObjectMethod(map, java.map_entries));
  auto array = static_cast<jobjectArray>(checked(env, env->CallObjectMethod(entries, java.entries_array)));
  jsize count = env->GetArrayLength(array);
  for (jsize index = 0; index < count; ++index) {
    LocalFrame inner(env);
    jobject entry = env->GetObjectArrayElement(array, index);
    auto name = static_cast<jstring>(checked(env, env->CallObjectMethod(entry, java.entry_key)));
    jobject tensor = checked(env, env->CallObjectMethod(entry, java.entry_value));
    tensors.insert_or_assign(text(env, name), native_tensor(env, tensor));
  }
  return tensors;
}

jobject java_tensors(JNIEnv* env, const std::map<std::string, EValue>& tensors) {
  // Twice as many places as entries: the map does not grow while it is filled.
  jobject map =
      checked(env, env->NewObject(java.hash_map, java.hash_map_new, static_cast<jint>(2 * tensors.size() + 1)));
  for (const auto& [name, value] : tensors) {
    LocalFrame frame(env);
    env->CallObjectMethod(map, java.map_put, java_text(env, name), java_tensor(env, value.toTensor()));
    check(env);
  }
  return map;
}

}  // namespace pocketfleet
