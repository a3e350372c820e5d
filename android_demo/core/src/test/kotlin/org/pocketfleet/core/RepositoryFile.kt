package org.pocketfleet.core

import java.io.File
import org.json.JSONArray
import org.json.JSONObject

/** Files that Python's tests read too; the property `pocketfleet.repository` names the clone's root. */
object RepositoryFile {
    fun text(path: String): String {
        val root = checkNotNull(System.getProperty("pocketfleet.repository")) {
            "run the tests with -Dpocketfleet.repository=<root of the clone>"
        }
        return File(root, path).readText()
    }

    fun json(path: String): JSONObject = JSONObject(text(path))
}

fun JSONArray.objects(): List<JSONObject> = List(length(), ::getJSONObject)

fun JSONArray.arrays(): List<JSONArray> = List(length(), ::getJSONArray)

fun JSONArray.ints(): List<Int> = List(length(), ::getInt)
