package org.pocketfleet.demo

import org.json.JSONArray
import org.json.JSONObject
import org.pocketfleet.core.BundleException
import org.pocketfleet.core.FileHash
import org.pocketfleet.core.Manifest
import org.pocketfleet.core.VerifiedBundle
import java.io.File

/**
 * What a benchmark tells of a bundle, from its manifest: which it is, and what a step needs.
 *
 * The two hashes are those of `pocketfleet bench` for the same bundle, so that results compare.
 */
class BundleFacts(val bundle: VerifiedBundle) {
    private val manifestFile = File(bundle.folder, Manifest.FILE)
    private val json = JSONObject(manifestFile.readText())
    private val footprint = json.getJSONObject("footprint").optJSONObject(RUNTIME)
        ?: throw BundleException("${bundle.folder} was not exported for ExecuTorch: export it for phones")

    val task: String = json.getJSONObject("task").getString("name")

    /** What is trained: task, terms of the step, largest batch, every shape and type. */
    val workloadSha256: String = sha256(
        JSONObject()
            .put("task", task)
            .put("settings", json.getJSONObject("settings"))
            .put("max_batch", bundle.manifest.maxBatch)
            .put("signature", json.getJSONObject("signature")),
    )

    /** How it is trained: the programs' files. */
    val programsSha256: String = sha256(
        JSONObject().apply {
            for ((name, entry) in bundle.manifest.files) {
                if (name.endsWith(".pte") || name.endsWith(".onnx")) put(name, entry.sha256)
            }
        },
    )

    /** Distribution names to the versions that exported the bundle. */
    val exportedWith: JSONObject = json.getJSONObject("exported_with")

    /** What a phone downloads once: the program, the manifest, the frozen weights. */
    val downloadBytes: Long
        get() {
            val names = names(footprint.getJSONObject("file_bytes")) + Manifest.FROZEN_FILE
            return manifestFile.length() + bundle.manifest.files.filterKeys(names::contains).values.sumOf { it.bytes }
        }

    /** Operations that one training step needs: counted at batch 1 and at the largest, on the line between them. */
    fun stepFlops(batch: Int): Double {
        val most = bundle.manifest.maxBatch
        val share = if (most > 1) (batch - 1.0) / (most - 1.0) else 0.0
        val operators = footprint.getJSONObject("operators").getJSONArray("train_step")
        return (0 until operators.length()).sumOf {
            val flops = operators.getJSONObject(it).getJSONArray("flops")
            flops.getDouble(0) + share * (flops.getDouble(1) - flops.getDouble(0))
        }
    }

    companion object {
        /** As results call it. */
        const val RUNTIME = "executorch"

        private fun sha256(value: JSONObject): String = FileHash.of(sortedText(value).toByteArray())

        /** As Python's `json.dumps(value, sort_keys=True)` writes it; of numbers only whole ones. */
        internal fun sortedText(value: Any): String = when (value) {
            is JSONObject -> names(value).sorted()
                .joinToString(", ", "{", "}") { "${quoted(it)}: ${sortedText(value.get(it))}" }
            is JSONArray -> (0 until value.length()).joinToString(", ", "[", "]") { sortedText(value.get(it)) }
            is String -> quoted(value)
            is Boolean, is Int, is Long -> value.toString()
            else -> throw BundleException("a manifest's settings and signature hold no $value")
        }

        // A desktop's org.json does not say of what type keys are.
        private fun names(json: JSONObject): List<String> = json.keys().asSequence().map { "$it" }.toList()

        /** Everything outside of ASCII is escaped, by UTF-16 units. */
        private fun quoted(text: String): String = text.map { letter ->
            when {
                letter == '"' -> "\\\""
                letter == '\\' -> "\\\\"
                letter == '\n' -> "\\n"
                letter == '\r' -> "\\r"
                letter == '\t' -> "\\t"
                letter == '\b' -> "\\b"
                letter == '\u000C' -> "\\f"
                // DEL is ASCII to Python.
                letter < ' ' || letter > '\u007F' -> "\\u" + letter.code.toString(16).padStart(4, '0')
                else -> letter.toString()
            }
        }.joinToString("", "\"", "\"")
    }
}
