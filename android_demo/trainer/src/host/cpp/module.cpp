// The native methods of org.pytorch.executorch.Module.
#include <jni.h>

#include <algorithm>
#include <memory>
#include <set>

#include <executorch/extension/module/module.h>

#include "java.h"
#include "runtime.h"
#include "values.h"

// The wheel ships the library but not this header (extension/threadpool/threadpool.h). Tried with executorch 1.5.1.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace pocketfleet {

namespace {

using executorch::extension::Module;
using executorch::runtime::Error;

class LoadedModule final : public NativeObject {
 public:
  LoadedModule(const std::string& path, Module::LoadMode mode) : module(path, mode) {}
  Module module;
};

Module& module_of(JNIEnv* env, jobject self) { return static_cast<LoadedModule*>(owned(env, self))->module; }

Module::LoadMode load_mode(JNIEnv* env, jint mode) {
  // Module's LOAD_MODE_* in the order of their numbers.
  constexpr Module::LoadMode kModes[] = {Module::LoadMode::File, Module::LoadMode::Mmap, Module::LoadMode::MmapUseMlock,
                                         Module::LoadMode::MmapUseMlockIgnoreErrors};
  if (mode < 0 || mode >= static_cast<jint>(std::size(kModes))) {
    throw_java(env, "java/lang/IllegalArgumentException", "there is no load mode " + std::to_string(mode));
  }
  return kModes[mode];
}

}  // namespace

}  // namespace pocketfleet

using namespace pocketfleet;

#define MODULE(name) Java_org_pytorch_executorch_Module_##name

extern "C" {

JNIEXPORT jobject JNICALL MODULE(initHybrid)(JNIEnv* env, jclass, jstring path, jint mode, jint threads) {
  return guarded(env, static_cast<jobject>(nullptr), [&] {
    auto module = std::make_unique<LoadedModule>(text(env, path), load_mode(env, mode));
    // 0 leaves the pool as it is.
    if (threads > 0) {
      executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(static_cast<uint32_t>(threads));
    }
    return hybrid(env, module.release());
  });
}

JNIEXPORT jobjectArray JNICALL MODULE(executeNative)(JNIEnv* env, jobject self, jstring method, jobjectArray inputs) {
  return guarded(env, static_cast<jobjectArray>(nullptr), [&] {
    Module& module = module_of(env, self);
    std::string name = text(env, method);
    Arguments arguments(env, inputs);
    auto outputs = module.execute(name, arguments.values());
    if (!outputs.ok()) {
      throw Refused{outputs.error(), "method " + name + " failed"};
    }
    return java_values(env, *outputs, outputs->size());
  });
}

JNIEXPORT jint JNICALL MODULE(loadMethodNative)(JNIEnv* env, jobject self, jstring method) {
  return guarded(env, static_cast<jint>(Error::Internal), [&] {
    return static_cast<jint>(module_of(env, self).load_method(text(env, method)));
  });
}

JNIEXPORT jobjectArray JNICALL MODULE(getMethodsNative)(JNIEnv* env, jobject self) {
  return guarded(env, static_cast<jobjectArray>(nullptr), [&] {
    auto names = module_of(env, self).method_names();
    if (!names.ok()) {
      throw Refused{names.error(), "the program cannot be loaded"};
    }
    std::vector<std::string> sorted(names->begin(), names->end());
    std::sort(sorted.begin(), sorted.end());
    return java_strings(env, sorted);
  });
}

JNIEXPORT jobjectArray JNICALL MODULE(getUsedBackends)(JNIEnv* env, jobject self, jstring method) {
  return guarded(env, static_cast<jobjectArray>(nullptr), [&] {
    std::string name = text(env, method);
    auto meta = module_of(env, self).method_meta(name);
    if (!meta.ok()) {
      throw Refused{meta.error(), "there is no method " + name};
    }
    std::set<std::string> backends;
    for (size_t index = 0; index < meta->num_backends(); ++index) {
      auto backend = meta->get_backend_name(index);
      if (!backend.ok()) {
        throw Refused{backend.error(), "backend " + std::to_string(index) + " of " + name + " has no name"};
      }
      backends.insert(*backend);
    }
    return java_strings(env, {backends.begin(), backends.end()});
  });
}

JNIEXPORT jobjectArray JNICALL MODULE(readLogBufferNative)(JNIEnv* env, jobject) {
  return guarded(env, static_cast<jobjectArray>(nullptr), [&] { return java_strings(env, taken_log()); });
}

JNIEXPORT jobjectArray JNICALL MODULE(readLogBufferStaticNative)(JNIEnv* env, jclass) {
  return guarded(env, static_cast<jobjectArray>(nullptr), [&] { return java_strings(env, taken_log()); });
}

// Nothing is traced here, so there is nothing to write.
JNIEXPORT jboolean JNICALL MODULE(etdumpNative)(JNIEnv*, jobject) { return JNI_FALSE; }

JNIEXPORT jboolean JNICALL MODULE(etdumpToNative)(JNIEnv*, jobject, jstring) { return JNI_FALSE; }

}  // extern "C"
