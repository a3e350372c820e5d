package org.pocketfleet.demo

import org.junit.Rule
import org.junit.rules.TemporaryFolder
import org.pocketfleet.core.BundleException
import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class BenchmarkFolderTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val root by lazy {
        folder.newFolder("files").also { bundleFolder("boston").copyRecursively(File(it, "bundle")) }
    }

    @Test
    fun `a bundle is found by its name or by its path`() {
        assertEquals("boston", BenchmarkFolder.bundle(root, "bundle").manifest.taskName)
        assertEquals("boston", BenchmarkFolder.bundle(root, File(root, "bundle").path).manifest.taskName)
    }

    @Test
    fun `no name leads out of the app's own folder`() {
        bundleFolder("boston").copyRecursively(File(folder.root, "elsewhere"))
        for (name in listOf("../elsewhere", File(folder.root, "elsewhere").path, "..", "/", "../files-of-another")) {
            val refused = assertFailsWith<BundleException>(name) { BenchmarkFolder.bundle(root, name) }
            assertTrue("adb push it there" in refused.message.orEmpty(), name)
        }
    }

    @Test
    fun `what is no sound bundle is refused`() {
        assertFailsWith<BundleException> { BenchmarkFolder.bundle(root, "missing") }
        File(root, "bundle/model.pte").appendText("!")
        assertFailsWith<BundleException> { BenchmarkFolder.bundle(root, "bundle") }
    }
}
