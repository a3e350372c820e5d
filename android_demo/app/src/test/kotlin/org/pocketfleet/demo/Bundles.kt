package org.pocketfleet.demo

import java.io.File

/** The demos' real bundles, where the tests' runner put them. */
internal fun bundleFolder(name: String): File {
    val root = checkNotNull(System.getProperty("pocketfleet.bundles")) { "run by android_demo/toolchain/unit_tests.py" }
    return File(root, "$name/bundle")
}
