// The Java side as the bridge sees it: classes and members looked up once, errors as Java throws them.
#pragma once

#include <jni.h>

#include <string>
#include <utility>

#include <executorch/runtime/core/error.h>

#include "native_object.h"

namespace pocketfleet {

// A Java exception is pending; the native method must return.
struct JavaThrown {};

// ExecuTorch refused; Java sees what ExecutorchRuntimeException.makeExecutorchException makes of it.
struct Refused {
  executorch::runtime::Error error;
  std::string message;
};

// Classes by global reference, and their members. Made when the library is loaded, released when it is unloaded.
struct Java {
  jclass tensor, evalue, string, hash_map, hybrid_data, exception;
  jmethodID tensor_dtype, tensor_buffer, tensor_of_native;
  jfieldID tensor_shape;
  jmethodID evalue_of_tensor, evalue_of_bool, evalue_of_int, evalue_of_double, evalue_of_string, evalue_none;
  jmethodID evalue_tensor, evalue_bool, evalue_int, evalue_double;
  jfieldID evalue_type;
  jmethodID hash_map_new, map_put, map_entries, entries_array, entry_key, entry_value;
  jmethodID hybrid_new;
  jfieldID hybrid_destructor, destructor_address;
  jmethodID make_exception, buffer_order;
  jobject little_endian;
};

extern Java java;

// Looks everything up; throws JavaThrown where a class or a member is missing.
void find_java(JNIEnv* env);
void release_java(JNIEnv* env);

// Throws JavaThrown if the call before it did.
inline void check(JNIEnv* env) {
  if (env->ExceptionCheck()) {
    throw JavaThrown{};
  }
}

// `value`, if the call that made it did not throw.
template <typename T>
T checked(JNIEnv* env, T value) {
  check(env);
  return value;
}

std::string text(JNIEnv* env, jstring value);
jstring java_text(JNIEnv* env, const std::string& value);

// Raises `class_name` in Java with the message.
[[noreturn]] void throw_java(JNIEnv* env, const char* class_name, const std::string& message);

// HybridData that owns `object`.
jobject hybrid(JNIEnv* env, NativeObject* object);

// What the field mHybridData of a Java object owns.
NativeObject* owned(JNIEnv* env, jobject self);

// Local references made inside are gone at the end, which a long loop needs.
class LocalFrame {
 public:
  explicit LocalFrame(JNIEnv* env, jint capacity = 16) : env_(env) {
    if (env->PushLocalFrame(capacity) != 0) {
      throw JavaThrown{};
    }
  }
  ~LocalFrame() { env_->PopLocalFrame(nullptr); }
  LocalFrame(const LocalFrame&) = delete;
  LocalFrame& operator=(const LocalFrame&) = delete;

 private:
  JNIEnv* env_;
};

void raise(JNIEnv* env, const Refused& refused);
void raise_runtime(JNIEnv* env, const char* what);

// Runs a native method's body; what it throws becomes a pending Java exception, and the method returns `otherwise`.
template <typename Body, typename Result>
Result guarded(JNIEnv* env, Result otherwise, Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (const JavaThrown&) {
  } catch (const Refused& refused) {
    raise(env, refused);
  } catch (const std::exception& failure) {
    raise_runtime(env, failure.what());
  }
  return otherwise;
}

}  // namespace pocketfleet
