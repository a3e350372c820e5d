package org.pocketfleet.demo

import org.junit.Rule
import org.junit.rules.TemporaryFolder
import java.io.File
import java.io.IOException
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class DemoSettingsTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val file get() = File(folder.root, "settings.json")

    @Test
    fun `nobody has agreed before they did`() {
        assertFalse(DemoSettings(file).consents)
        for (text in listOf("", "{", "[]", """{"task": "boston", "paused": false}""", """{"consents": 1}""")) {
            file.writeText(text)
            assertFalse(DemoSettings(file).consents, text)
        }
    }

    @Test
    fun `a file that cannot be read is no consent`() {
        file.mkdir()
        assertFalse(DemoSettings(file).consents)
    }

    @Test
    fun `choices outlive the app`() {
        DemoSettings(file).change(task = DemoTask.DIGITS, consents = true)
        DemoSettings(file).change(paused = true)
        val read = DemoSettings(file)
        assertEquals(DemoTask.DIGITS, read.task)
        assertTrue(read.consents)
        assertTrue(read.paused)
    }

    @Test
    fun `a choice that cannot be kept is none`() {
        val settings = DemoSettings(File(folder.root, "missing/settings.json"))
        assertFailsWith<IOException> { settings.change(consents = true) }
        assertFalse(settings.consents)
    }
}
