package org.pocketfleet.demo

import java.io.File
import java.io.IOException

/** What this process holds, as Linux counts it; needs no permission. */
object ProcessMemory {
    private val STATUS = File("/proc/self/status")
    private val CLEAR = File("/proc/self/clear_refs")

    /** Resident bytes at the moment. */
    fun residentBytes(): Long = field("VmRSS")

    /** The most resident bytes since the process began, or since [forgetPeak]. */
    fun peakBytes(): Long = field("VmHWM")

    /** Resident bytes that are this process's alone, no file's; 0 from a kernel before 4.5, which does not tell. */
    fun ownBytes(): Long = told("RssAnon") ?: 0

    /** Begin to count the peak anew; false: the system forbids it, and the peak is since the process began. */
    fun forgetPeak(): Boolean = try {
        // 5 resets the peak: proc_pid_clear_refs(5).
        CLEAR.writeText("5")
        true
    } catch (_: IOException) {
        false
    }

    private fun field(name: String): Long = told(name) ?: throw IOException("$STATUS has no $name")

    private fun told(name: String): Long? {
        val line = STATUS.useLines { lines -> lines.firstOrNull { it.startsWith("$name:") } }
        val kilobytes = line?.removePrefix("$name:")?.removeSuffix("kB")?.trim()?.toLongOrNull()
        return kilobytes?.let { 1024 * it }
    }
}
