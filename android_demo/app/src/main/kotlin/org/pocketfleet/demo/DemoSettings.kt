package org.pocketfleet.demo

import org.json.JSONException
import org.json.JSONObject
import java.io.File
import java.io.FileOutputStream
import java.io.IOException

/**
 * What the user chose, in a file: it is there whole or as it was before. May be used from several threads.
 *
 * Nothing trains before the user says so: [consents] is false at first, and where the file cannot be read.
 */
class DemoSettings(private val file: File) {
    @get:Synchronized
    var task: DemoTask = DemoTask.HOUSES
        private set

    @get:Synchronized
    var consents: Boolean = false
        private set

    @get:Synchronized
    var paused: Boolean = false
        private set

    init {
        if (file.exists()) {
            try {
                val json = JSONObject(file.readText())
                task = DemoTask.of(json.getString("task")) ?: DemoTask.HOUSES
                paused = json.getBoolean("paused")
                consents = json.getBoolean("consents")
            } catch (_: JSONException) {
                consents = false
            } catch (_: IOException) {
                consents = false
            }
        }
    }

    /**
     * Change some; on the disk when this returns.
     *
     * @throws IOException the phone's storage did not take it, and nothing has changed.
     */
    @Synchronized
    fun change(task: DemoTask = this.task, consents: Boolean = this.consents, paused: Boolean = this.paused) {
        val json = JSONObject().put("task", task.word).put("consents", consents).put("paused", paused)
        val written = File(file.path + ".new")
        FileOutputStream(written).use {
            it.write(json.toString().toByteArray())
            it.fd.sync()
        }
        if (!written.renameTo(file)) throw IOException("cannot replace $file")
        this.task = task
        this.consents = consents
        this.paused = paused
    }
}
