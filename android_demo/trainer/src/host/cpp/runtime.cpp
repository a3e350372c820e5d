// Loading and unloading of libexecutorch.so, the log that errors are explained from, and ExecuTorchRuntime.
#include "runtime.h"

#include <jni.h>

#include <deque>
#include <mutex>
#include <set>

#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include "java.h"
#include "values.h"

namespace pocketfleet {

namespace {

// As many lines as explain an error; a phone keeps a bounded number too.
constexpr size_t kLogLines = 128;

std::mutex log_mutex;
std::deque<std::string> log_lines;

void keep_log(et_timestamp_t, et_pal_log_level_t level, const char* file, const char*, size_t line, const char* message,
              size_t length) {
  std::string entry(1, static_cast<char>(level));
  entry += " " + std::string(file) + ":" + std::to_string(line) + "] " + std::string(message, length);
  std::lock_guard<std::mutex> lock(log_mutex);
  log_lines.push_back(std::move(entry));
  if (log_lines.size() > kLogLines) {
    log_lines.pop_front();
  }
}

}  // namespace

std::vector<std::string> taken_log() {
  std::lock_guard<std::mutex> lock(log_mutex);
  std::vector<std::string> lines(log_lines.begin(), log_lines.end());
  log_lines.clear();
  return lines;
}

}  // namespace pocketfleet

using namespace pocketfleet;

extern "C" {

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM* vm, void*) {
  JNIEnv* env = nullptr;
  if (vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_8) != JNI_OK) {
    return JNI_ERR;
  }
  return guarded(env, JNI_ERR, [&] {
    find_java(env);
    executorch::runtime::register_pal(executorch::runtime::PalImpl::create(keep_log, __FILE__));
    executorch::runtime::runtime_init();
    return JNI_VERSION_1_8;
  });
}

JNIEXPORT void JNICALL JNI_OnUnload(JavaVM* vm, void*) {
  JNIEnv* env = nullptr;
  if (vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_8) == JNI_OK) {
    release_java(env);
  }
}

JNIEXPORT jobjectArray JNICALL Java_org_pytorch_executorch_ExecuTorchRuntime_getRegisteredOps(JNIEnv* env, jclass) {
  return guarded(env, static_cast<jobjectArray>(nullptr), [&] {
    // A kernel is registered once for each type that it takes.
    std::set<std::string> names;
    for (const auto& kernel : executorch::runtime::get_registered_kernels()) {
      names.insert(kernel.name_);
    }
    return java_strings(env, {names.begin(), names.end()});
  });
}

JNIEXPORT jobjectArray JNICALL Java_org_pytorch_executorch_ExecuTorchRuntime_getRegisteredBackends(JNIEnv* env,
                                                                                                    jclass) {
  return guarded(env, static_cast<jobjectArray>(nullptr), [&] {
    std::vector<std::string> names;
    for (size_t index = 0; index < executorch::runtime::get_num_registered_backends(); ++index) {
      auto name = executorch::runtime::get_backend_name(index);
      if (!name.ok()) {
        throw Refused{name.error(), "backend " + std::to_string(index) + " has no name"};
      }
      names.emplace_back(*name);
    }
    return java_strings(env, names);
  });
}

}  // extern "C"
