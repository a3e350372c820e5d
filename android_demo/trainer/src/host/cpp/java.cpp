#include "java.h"

#include <memory>

namespace pocketfleet {

Java java{};

namespace {

jclass find(JNIEnv* env, const char* name) {
  jclass local = checked(env, env->FindClass(name));
  auto global = static_cast<jclass>(env->NewGlobalRef(local));
  env->DeleteLocalRef(local);
  return global;
}

void find_tensors(JNIEnv* env) {
  java.tensor = find(env, "org/pytorch/executorch/Tensor");
  java.tensor_dtype = checked(env, env->GetMethodID(java.tensor, "dtypeJniCode", "()I"));
  java.tensor_buffer = checked(env, env->GetMethodID(java.tensor, "getRawDataBuffer", "()Ljava/nio/Buffer;"));
  java.tensor_of_native = checked(
      env, env->GetStaticMethodID(
               java.tensor, "nativeNewTensor",
               "(Ljava/nio/ByteBuffer;[JILcom/facebook/jni/HybridData;)Lorg/pytorch/executorch/Tensor;"));
  java.tensor_shape = checked(env, env->GetFieldID(java.tensor, "shape", "[J"));

  jclass buffer = checked(env, env->FindClass("java/nio/ByteBuffer"));
  java.buffer_order = checked(env, env->GetMethodID(buffer, "order", "(Ljava/nio/ByteOrder;)Ljava/nio/ByteBuffer;"));
  jclass order = checked(env, env->FindClass("java/nio/ByteOrder"));
  jfieldID field = checked(env, env->GetStaticFieldID(order, "LITTLE_ENDIAN", "Ljava/nio/ByteOrder;"));
  java.little_endian = env->NewGlobalRef(env->GetStaticObjectField(order, field));
}

void find_evalues(JNIEnv* env) {
  java.evalue = find(env, "org/pytorch/executorch/EValue");
  auto maker = [env](const char* name, const char* signature) {
    return checked(env, env->GetStaticMethodID(java.evalue, name, signature));
  };
  java.evalue_of_tensor = maker("from", "(Lorg/pytorch/executorch/Tensor;)Lorg/pytorch/executorch/EValue;");
  java.evalue_of_bool = maker("from", "(Z)Lorg/pytorch/executorch/EValue;");
  java.evalue_of_int = maker("from", "(J)Lorg/pytorch/executorch/EValue;");
  java.evalue_of_double = maker("from", "(D)Lorg/pytorch/executorch/EValue;");
  java.evalue_of_string = maker("from", "(Ljava/lang/String;)Lorg/pytorch/executorch/EValue;");
  java.evalue_none = maker("optionalNone", "()Lorg/pytorch/executorch/EValue;");
  java.evalue_tensor = checked(env, env->GetMethodID(java.evalue, "toTensor", "()Lorg/pytorch/executorch/Tensor;"));
  java.evalue_bool = checked(env, env->GetMethodID(java.evalue, "toBool", "()Z"));
  java.evalue_int = checked(env, env->GetMethodID(java.evalue, "toInt", "()J"));
  java.evalue_double = checked(env, env->GetMethodID(java.evalue, "toDouble", "()D"));
  java.evalue_type = checked(env, env->GetFieldID(java.evalue, "mTypeCode", "I"));
}

void find_maps(JNIEnv* env) {
  java.hash_map = find(env, "java/util/HashMap");
  java.hash_map_new = checked(env, env->GetMethodID(java.hash_map, "<init>", "(I)V"));
  jclass map = checked(env, env->FindClass("java/util/Map"));
  java.map_put =
      checked(env, env->GetMethodID(map, "put", "(Ljava/lang/Object;Ljava/lang/Object;)Ljava/lang/Object;"));
  java.map_entries = checked(env, env->GetMethodID(map, "entrySet", "()Ljava/util/Set;"));
  jclass set = checked(env, env->FindClass("java/util/Set"));
  java.entries_array = checked(env, env->GetMethodID(set, "toArray", "()[Ljava/lang/Object;"));
  jclass entry = checked(env, env->FindClass("java/util/Map$Entry"));
  java.entry_key = checked(env, env->GetMethodID(entry, "getKey", "()Ljava/lang/Object;"));
  java.entry_value = checked(env, env->GetMethodID(entry, "getValue", "()Ljava/lang/Object;"));
}

void find_hybrids(JNIEnv* env) {
  java.hybrid_data = find(env, "com/facebook/jni/HybridData");
  java.hybrid_new = checked(env, env->GetMethodID(java.hybrid_data, "<init>", "()V"));
  java.hybrid_destructor =
      checked(env, env->GetFieldID(java.hybrid_data, "mDestructor", "Lcom/facebook/jni/HybridData$Destructor;"));
  jclass destructor = checked(env, env->FindClass("com/facebook/jni/HybridData$Destructor"));
  java.destructor_address = checked(env, env->GetFieldID(destructor, "mNativePointer", "J"));
}

}  // namespace

void find_java(JNIEnv* env) {
  LocalFrame frame(env);
  java.string = find(env, "java/lang/String");
  java.exception = find(env, "org/pytorch/executorch/ExecutorchRuntimeException");
  java.make_exception = checked(
      env, env->GetStaticMethodID(
               java.exception, "makeExecutorchException", "(ILjava/lang/String;)Ljava/lang/RuntimeException;"));
  find_tensors(env);
  find_evalues(env);
  find_maps(env);
  find_hybrids(env);
}

void release_java(JNIEnv* env) {
  for (jobject reference : {static_cast<jobject>(java.tensor), static_cast<jobject>(java.evalue),
                            static_cast<jobject>(java.string), static_cast<jobject>(java.hash_map),
                            static_cast<jobject>(java.hybrid_data), static_cast<jobject>(java.exception),
                            java.little_endian}) {
    env->DeleteGlobalRef(reference);
  }
  java = Java{};
}

std::string text(JNIEnv* env, jstring value) {
  if (value == nullptr) {
    throw_java(env, "java/lang/NullPointerException", "a string is null");
  }
  const char* characters = env->GetStringUTFChars(value, nullptr);
  if (characters == nullptr) {
    throw JavaThrown{};
  }
  std::string copy(characters);
  env->ReleaseStringUTFChars(value, characters);
  return copy;
}

jstring java_text(JNIEnv* env, const std::string& value) { return checked(env, env->NewStringUTF(value.c_str())); }

void throw_java(JNIEnv* env, const char* class_name, const std::string& message) {
  jclass type = checked(env, env->FindClass(class_name));
  env->ThrowNew(type, message.c_str());
  env->DeleteLocalRef(type);
  throw JavaThrown{};
}

jobject hybrid(JNIEnv* env, NativeObject* object) {
  std::unique_ptr<NativeObject> kept(object);
  jobject data = checked(env, env->NewObject(java.hybrid_data, java.hybrid_new));
  jobject destructor = env->GetObjectField(data, java.hybrid_destructor);
  env->SetLongField(destructor, java.destructor_address, reinterpret_cast<jlong>(kept.release()));
  env->DeleteLocalRef(destructor);
  return data;
}

NativeObject* owned(JNIEnv* env, jobject self) {
  LocalFrame frame(env);
  jclass type = env->GetObjectClass(self);
  jfieldID field = checked(env, env->GetFieldID(type, "mHybridData", "Lcom/facebook/jni/HybridData;"));
  jobject data = env->GetObjectField(self, field);
  jobject destructor = data == nullptr ? nullptr : env->GetObjectField(data, java.hybrid_destructor);
  jlong address = destructor == nullptr ? 0 : env->GetLongField(destructor, java.destructor_address);
  if (address == 0) {
    throw_java(env, "java/lang/IllegalStateException", "the native object was closed");
  }
  return reinterpret_cast<NativeObject*>(address);
}

void raise(JNIEnv* env, const Refused& refused) {
  jstring message = env->NewStringUTF(refused.message.c_str());
  if (message == nullptr) {
    return;
  }
  jobject failure = env->CallStaticObjectMethod(
      java.exception, java.make_exception, static_cast<jint>(refused.error), message);
  if (failure != nullptr && !env->ExceptionCheck()) {
    env->Throw(static_cast<jthrowable>(failure));
  }
}

void raise_runtime(JNIEnv* env, const char* what) {
  jclass type = env->FindClass("java/lang/RuntimeException");
  if (type != nullptr) {
    env->ThrowNew(type, what);
  }
}

}  // namespace pocketfleet
