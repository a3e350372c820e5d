package org.pocketfleet.demo

import org.json.JSONObject
import java.io.File
import java.io.IOException

/** A measurement's result, and its file. */
class Measured(val run: ProcessRun, val json: JSONObject)

/**
 * What becomes of one measurement: its result in [folder], and beside it in words what went wrong.
 *
 * @param note for the system's log.
 */
class BenchmarkErrand(private val folder: File, private val note: (String, Throwable?) -> Unit) {
    private val result = File(folder, RESULT)

    /**
     * Measure, and tell the service where [post] is one's way to do so. Whatever fails is in [ERROR], also what ends
     * other programs, such as a lack of memory or of a native library; a result that is there stays.
     */
    fun run(measure: () -> Measured, post: ((ProcessRun) -> Unit)?) {
        val run = told("no result") {
            result.delete()
            File(folder, ERROR).delete()
            measure().also(::write).run
        }
        if (run != null && post != null) told("$RESULT is there, but the service was not told") { post(run) }
    }

    private fun write(measured: Measured) {
        val written = File(folder, "$RESULT.new")
        written.writeText(measured.json.toString(2) + "\n")
        check(written.renameTo(result)) { "cannot write $RESULT in $folder" }
        note("wrote $result", null)
    }

    private fun <T> told(what: String, work: () -> T): T? = try {
        work()
    } catch (failure: Throwable) {
        note(what, failure)
        tell("$what: $failure\n")
        null
    }

    private fun tell(text: String) = try {
        File(folder, ERROR).writeText(text)
    } catch (exception: IOException) {
        // The log has said it.
        note("cannot write $ERROR", exception)
    }

    companion object {
        /** What `adb pull` brings home. */
        const val RESULT = "benchmark.json"

        /** Why there is none, or why the service was not told. */
        const val ERROR = "benchmark.error.txt"
    }
}
