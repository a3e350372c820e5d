package com.facebook.soloader.nativeloader;

/** A way of loading native libraries. */
public interface NativeLoaderDelegate {
  /**
   * Loads a library.
   *
   * @param name without {@code lib} and {@code .so}
   * @param flags none are known here
   * @return whether it was loaded
   */
  boolean loadLibrary(String name, int flags);
}
