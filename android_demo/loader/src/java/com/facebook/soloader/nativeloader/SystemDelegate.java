package com.facebook.soloader.nativeloader;

/** The system's own way: from the app's libraries, or a JVM's {@code java.library.path}. */
public final class SystemDelegate implements NativeLoaderDelegate {
  @Override
  public boolean loadLibrary(String name, int flags) {
    System.loadLibrary(name);
    return true;
  }
}
