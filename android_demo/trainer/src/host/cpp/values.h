// Tensors and other values between Java's classes and the runtime's.
#pragma once

#include <jni.h>

#include <map>
#include <string>
#include <vector>

#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/core/evalue.h>

namespace pocketfleet {

// Arguments of a call. Their tensors read Java's buffers in place, for as long as this lives and Java holds them.
class Arguments {
 public:
  Arguments(JNIEnv* env, jobjectArray values);
  const std::vector<executorch::runtime::EValue>& values() const { return values_; }

 private:
  std::vector<executorch::extension::TensorPtr> tensors_;
  std::vector<executorch::runtime::EValue> values_;
};

// A tensor over the buffer of a Java one.
executorch::extension::TensorPtr native_tensor(JNIEnv* env, jobject tensor);

// A Java tensor over the memory of a native one, which is the runtime's and changes with its next call.
jobject java_tensor(JNIEnv* env, const executorch::aten::Tensor& tensor);

// The first `count` values as Java's EValue[].
jobjectArray java_values(JNIEnv* env, const std::vector<executorch::runtime::EValue>& values, size_t count);

jobjectArray java_strings(JNIEnv* env, const std::vector<std::string>& values);

// Between java.util.Map<String, Tensor> and a map by name.
using TensorsByName = std::map<std::string, executorch::extension::TensorPtr>;
TensorsByName native_tensors(JNIEnv* env, jobject map);
jobject java_tensors(JNIEnv* env, const std::map<std::string, executorch::runtime::EValue>& tensors);

}  // namespace pocketfleet
