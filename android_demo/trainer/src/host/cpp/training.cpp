// The native methods of org.pytorch.executorch.training: TrainingModule and SGD.
//
// The wheel's C++ has no training library, so its two parts are done here over Module:
// 1. A joint graph `m` returns its losses, then gradients, then weights. The methods __et_training_gradients_index_m
//    and __et_training_parameters_index_m say where those begin, and __et_training_fqn_m names them, in this order.
// 2. The weights among the results are the program's own memory: an optimizer changes them there.
#include <jni.h>

#include <memory>

#include <executorch/extension/module/module.h>

#include "java.h"
#include "values.h"

namespace pocketfleet {

namespace {

using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;

using ValuesByName = std::map<std::string, EValue>;

std::vector<EValue> run(Module& module, const std::string& method, const std::vector<EValue>& inputs) {
  auto outputs = module.execute(method, inputs);
  if (!outputs.ok()) {
    throw Refused{outputs.error(), "method " + method + " failed"};
  }
  return std::move(*outputs);
}

size_t index_of(Module& module, const std::string& what, const std::string& method) {
  auto outputs = run(module, "__et_training_" + what + "_index_" + method, {});
  if (outputs.size() != 1 || !outputs[0].isInt() || outputs[0].toInt() < 0) {
    throw Refused{Error::InvalidProgram, "the program does not say where the " + what + " of " + method + " begin"};
  }
  return static_cast<size_t>(outputs[0].toInt());
}

// How the results of one joint graph are laid out: rule 1.
class Layout {
 public:
  Layout(Module& module, const std::string& method)
      : gradients_(index_of(module, "gradients", method)), parameters_(index_of(module, "parameters", method)) {
    for (const EValue& value : run(module, "__et_training_fqn_" + method, {})) {
      auto name = value.toString();
      names_.emplace_back(name.data(), name.size());
    }
    if (parameters_ != gradients_ + names_.size()) {
      throw Refused{Error::InvalidProgram,
                    method + " names " + std::to_string(names_.size()) + " weights but returns " +
                        std::to_string(parameters_ - gradients_) + " gradients"};
    }
  }

  size_t losses() const { return gradients_; }
  ValuesByName gradients(const std::vector<EValue>& outputs) const { return named(outputs, gradients_); }
  ValuesByName parameters(const std::vector<EValue>& outputs) const { return named(outputs, parameters_); }

 private:
  ValuesByName named(const std::vector<EValue>& outputs, size_t begin) const {
    ValuesByName values;
    for (size_t index = 0; index < names_.size(); ++index) {
      values.insert_or_assign(names_[index], outputs.at(begin + index));
    }
    return values;
  }

  size_t gradients_;
  size_t parameters_;
  std::vector<std::string> names_;
};

class LoadedTraining final : public NativeObject {
 public:
  LoadedTraining(const std::string& path, const std::string& data)
      : module_(data.empty() ? std::make_unique<Module>(path) : std::make_unique<Module>(path, data)) {
    Error error = module_->load();
    if (error != Error::Ok) {
      throw Refused{error, "the training program cannot be loaded"};
    }
  }

  std::vector<EValue> forward_backward(const std::string& method, const std::vector<EValue>& inputs, size_t* losses) {
    const Layout& layout = layout_of(method);
    std::vector<EValue> outputs = run(*module_, method, inputs);
    gradients_.insert_or_assign(method, layout.gradients(outputs));
    *losses = layout.losses();
    return outputs;
  }

  ValuesByName parameters(const std::string& method) {
    const Layout& layout = layout_of(method);
    Error error = module_->load_method(method);
    if (error != Error::Ok) {
      throw Refused{error, "method " + method + " cannot be loaded"};
    }
    auto outputs = module_->get_outputs(method);
    if (!outputs.ok()) {
      throw Refused{outputs.error(), "the weights of " + method + " cannot be read"};
    }
    return layout.parameters(*outputs);
  }

  const ValuesByName& gradients(const std::string& method) const {
    auto found = gradients_.find(method);
    if (found == gradients_.end()) {
      throw Refused{Error::InvalidState, "there are no gradients of " + method + " before its first run"};
    }
    return found->second;
  }

 private:
  const Layout& layout_of(const std::string& method) {
    auto found = layouts_.find(method);
    return found != layouts_.end() ? found->second : layouts_.try_emplace(method, *module_, method).first->second;
  }

  std::unique_ptr<Module> module_;
  std::map<std::string, Layout> layouts_;
  std::map<std::string, ValuesByName> gradients_;
};

struct SgdOptions {
  double learning_rate, momentum, dampening, weight_decay;
  bool nesterov;
};

// Stochastic gradient descent in torch.optim.SGD's order of terms; it changes the weights where they lie.
class Sgd final : public NativeObject {
 public:
  Sgd(TensorsByName parameters, SgdOptions options) : parameters_(std::move(parameters)), options_(options) {}

  void step(const TensorsByName& gradients) {
    for (auto& [name, parameter] : parameters_) {
      auto gradient = gradients.find(name);
      if (gradient != gradients.end()) {
        move(name, *parameter, *gradient->second);
      }
    }
  }

 private:
  void move(const std::string& name, executorch::aten::Tensor& parameter, const executorch::aten::Tensor& gradient) {
    if (parameter.scalar_type() != ScalarType::Float || gradient.scalar_type() != ScalarType::Float ||
        parameter.numel() != gradient.numel()) {
      throw Refused{Error::InvalidArgument, "the gradient of " + name + " is not shaped as the weight, or not float"};
    }
    auto count = static_cast<size_t>(parameter.numel());
    auto* weights = parameter.mutable_data_ptr<float>();
    const auto* slopes = gradient.const_data_ptr<float>();
    auto momentum = static_cast<float>(options_.momentum), kept = static_cast<float>(1.0 - options_.dampening);
    auto decay = static_cast<float>(options_.weight_decay), rate = static_cast<float>(options_.learning_rate);
    auto [slot, first] = velocities_.try_emplace(name);
    if (first && momentum != 0.0F) {
      slot->second.assign(count, 0.0F);
    }
    for (size_t index = 0; index < count; ++index) {
      float slope = slopes[index] + decay * weights[index];
      if (momentum != 0.0F) {
        float& velocity = slot->second[index];
        // The first step is not dampened.
        velocity = first ? slope : momentum * velocity + kept * slope;
        slope = options_.nesterov ? slope + momentum * velocity : velocity;
      }
      weights[index] -= rate * slope;
    }
  }

  TensorsByName parameters_;
  SgdOptions options_;
  std::map<std::string, std::vector<float>> velocities_;
};

LoadedTraining& training_of(JNIEnv* env, jobject self) { return *static_cast<LoadedTraining*>(owned(env, self)); }

}  // namespace

}  // namespace pocketfleet

using namespace pocketfleet;

#define TRAINING_MODULE(name) Java_org_pytorch_executorch_training_TrainingModule_##name
#define SGD(name) Java_org_pytorch_executorch_training_SGD_##name

extern "C" {

JNIEXPORT jobject JNICALL TRAINING_MODULE(initHybrid)(JNIEnv* env, jclass, jstring path, jstring data) {
  return guarded(env, static_cast<jobject>(nullptr), [&] {
    return hybrid(env, std::make_unique<LoadedTraining>(text(env, path), text(env, data)).release());
  });
}

JNIEXPORT jobjectArray JNICALL TRAINING_MODULE(executeForwardBackwardNative)(JNIEnv* env, jobject self, jstring method,
                                                                             jobjectArray inputs) {
  return guarded(env, static_cast<jobjectArray>(nullptr), [&] {
    Arguments arguments(env, inputs);
    size_t losses = 0;
    auto outputs = training_of(env, self).forward_backward(text(env, method), arguments.values(), &losses);
    return java_values(env, outputs, losses);
  });
}

JNIEXPORT jobject JNICALL TRAINING_MODULE(namedParametersNative)(JNIEnv* env, jobject self, jstring method) {
  return guarded(env, static_cast<jobject>(nullptr),
                 [&] { return java_tensors(env, training_of(env, self).parameters(text(env, method))); });
}

JNIEXPORT jobject JNICALL TRAINING_MODULE(namedGradientsNative)(JNIEnv* env, jobject self, jstring method) {
  return guarded(env, static_cast<jobject>(nullptr),
                 [&] { return java_tensors(env, training_of(env, self).gradients(text(env, method))); });
}

JNIEXPORT jobject JNICALL SGD(initHybrid)(JNIEnv* env, jclass, jobject parameters, jdouble learning_rate,
                                          jdouble momentum, jdouble dampening, jdouble weight_decay,
                                          jboolean nesterov) {
  return guarded(env, static_cast<jobject>(nullptr), [&] {
    SgdOptions options{.learning_rate = learning_rate,
                       .momentum = momentum,
                       .dampening = dampening,
                       .weight_decay = weight_decay,
                       .nesterov = nesterov == JNI_TRUE};
    return hybrid(env, std::make_unique<Sgd>(native_tensors(env, parameters), options).release());
  });
}

JNIEXPORT void JNICALL SGD(stepNative)(JNIEnv* env, jobject self, jobject gradients) {
  guarded(env, false, [&] {
    static_cast<Sgd*>(owned(env, self))->step(native_tensors(env, gradients));
    return true;
  });
}

}  // extern "C"
