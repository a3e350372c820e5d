// The native half of com.facebook.jni.HybridData: libfbjni.so, as far as a JVM on a desktop needs it.
#include <jni.h>

#include "native_object.h"

extern "C" JNIEXPORT void JNICALL
Java_com_facebook_jni_HybridData_00024Destructor_deleteNative(JNIEnv*, jclass, jlong address) {
  // Of an object that was closed, the address is 0.
  delete reinterpret_cast<pocketfleet::NativeObject*>(address);
}
