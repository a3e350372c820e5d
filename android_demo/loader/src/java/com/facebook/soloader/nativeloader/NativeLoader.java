package com.facebook.soloader.nativeloader;

/** What ExecuTorch's classes load their native library by: the system's own loader, unless another was set before. */
public final class NativeLoader {
  private static NativeLoaderDelegate delegate;

  private NativeLoader() {}

  /** Whether a way of loading was set. */
  public static synchronized boolean isInitialized() {
    return delegate != null;
  }

  /** Sets the way of loading; the first one counts, since libraries may have been loaded by it. */
  public static synchronized void init(NativeLoaderDelegate chosen) {
    if (delegate == null) {
      delegate = chosen;
    }
  }

  /** Loads a library; once is enough, and loading again does nothing. */
  public static boolean loadLibrary(String name) {
    init(new SystemDelegate());
    synchronized (NativeLoader.class) {
      return delegate.loadLibrary(name, 0);
    }
  }
}
