// What a Java object of ExecuTorch's owns on this side, held by fbjni's HybridData.
#pragma once

namespace pocketfleet {

// HybridData keeps its address and has it deleted, on close or when the Java object is gone.
class NativeObject {
 public:
  virtual ~NativeObject() = default;
};

}  // namespace pocketfleet
