package com.facebook.soloader;

import com.facebook.soloader.nativeloader.NativeLoader;

/** The name by which fbjni's classes of 2019 load their library; it has had another name since. */
public final class SoLoader {
  private SoLoader() {}

  /** Loads what was called {@code fb} once; any other library by its own name. */
  public static boolean loadLibrary(String name) {
    return NativeLoader.loadLibrary(name.equals("fb") ? "fbjni" : name);
  }
}
