package org.pocketfleet.core

import java.io.File
import org.json.JSONObject

/** Who the device is to the service at [url]. */
data class Credential(val url: String, val deviceId: String, val secret: String)

/** An assignment, and the time of the wall at which its report is too late. */
data class WorkUnderWay(val assignment: Assignment, val deadlineWallS: Double)

/** What is sent beside an update's bytes, and what is remembered of its attempt once it counts. */
data class FinishedReport(
    val assignmentId: Long,
    val updateSha256: String,
    val deadlineWallS: Double,
    val facts: ReportFacts,
    val record: RoundRecord,
)

/**
 * What the app keeps, in one folder of its own: enough to go on from wherever it died.
 *
 * | name | what |
 * |---|---|
 * | `credential.json` | who it is to the service |
 * | `rule.json` | by which it looks at itself before it asks: that of its last assignment |
 * | `released.json` | the model that the service wants it to predict with |
 * | `bundle.json` | which of the bundles is the last work's, the memory that it needs, the bits of a version's weights |
 * | `assignment.json` | the work under way |
 * | `files/`, `bundles/` | downloads by hash, and the bundles made of them |
 * | `report/` | finished work: the update as it is sent, what is said of it, the model that was trained |
 * | `reported/` | the same once it counts, until all that follows from that is done |
 * | `model.safetensors` | the device's own model |
 * | `residual.safetensors` | what its last report did not say ([ErrorFeedback]) |
 * | `rounds.jsonl` | a line for each attempt that is over |
 *
 * Files and folders are there whole or not at all, and forced to the storage. Where room is missing a
 * [StorageException] tells so, and what was there is there still. One process at a time.
 */
class DeviceStore(private val folder: File, private val disk: Disk = PhoneDisk) {
    val downloads = Downloads(file("files"), file("bundles"), disk)
    private val history = RoundHistory(file("rounds.jsonl"), disk)

    init {
        makeFolders()
    }

    fun credential(): Credential? =
        read("credential.json") { Credential(it.text("url"), it.text("device_id"), it.text("credential")) }

    /** Before anything else that a token was given for. */
    fun keep(credential: Credential) {
        // Who comes back to this object after it forgot everything.
        makeFolders()
        write(
            "credential.json",
            jsonOf("url" to credential.url, "device_id" to credential.deviceId, "credential" to credential.secret),
        )
    }

    fun rule(): Rule = read("rule.json") { it.rule("rule") } ?: Rule()

    fun keep(rule: Rule) {
        if (rule() != rule || !file("rule.json").exists()) write("rule.json", jsonOf("rule" to rule.toJson()))
    }

    fun released(): ReleasedModel? = read("released.json", ReleasedModel::of)

    fun keep(released: ReleasedModel) {
        if (released() != released) write("released.json", released.toJson())
    }

    /** The bundle of the last work, whose [Manifest.FILE] this is; null: there was none yet. */
    fun bundle(): FileEntry? = read("bundle.json") { it.file("manifest") }

    /** What the last work's program needs to train; 0: nobody knows yet. */
    fun neededMemoryBytes(): Long = read("bundle.json") { it.whole("needed_memory_bytes") } ?: 0

    /** Of a weight in the versions of the last work's model; 0: all. */
    fun downloadBits(): Int = read("bundle.json") { it.small("download_bits") } ?: 0

    fun keepBundle(manifest: FileEntry, neededMemoryBytes: Long, downloadBits: Int) {
        if (bundle() == manifest && downloadBits() == downloadBits) return
        write(
            "bundle.json",
            jsonOf(
                "manifest" to manifest.toJson(),
                "needed_memory_bytes" to neededMemoryBytes,
                "download_bits" to downloadBits,
            ),
        )
    }

    fun work(): WorkUnderWay? = read("assignment.json") {
        WorkUnderWay(Assignment.of(it.part("assignment")), it.number("deadline_wall_s"))
    }

    /** An assignment is taken on. */
    fun begin(work: WorkUnderWay) = write(
        "assignment.json",
        jsonOf("assignment" to work.assignment.toJson(), "deadline_wall_s" to work.deadlineWallS),
    )

    /** The device's own model, trained in a round that counts; null: there is none yet. */
    fun ownModel(): File? = file(MODEL).takeIf { it.isFile }

    /** What the last report that counts did not say; empty: there was none with error feedback. */
    fun residual(): Tensors {
        val file = file(RESIDUAL)
        if (!file.isFile) return emptyMap()
        return onStorage("cannot read $RESIDUAL") { SafeTensors.read(file, file.length()) }
    }

    fun rounds(): List<RoundRecord> = history.all()

    fun freeBytes(): Long = disk.freeBytes(folder)

    /**
     * Training is done: from now on [update] is what is sent.
     *
     * @param model takes effect once the report counts.
     * @param residual likewise; empty: the one before stays.
     */
    fun finish(report: FinishedReport, update: Tensors, model: Tensors, residual: Tensors = emptyMap()) {
        val partial = file(".report.partial")
        disk.deleteAll(partial)
        onStorage("cannot make the report's folder") { disk.makeFolder(partial) }
        disk.writeWhole(File(partial, UPDATE)) { SafeTensors.write(update, it) }
        disk.writeWhole(File(partial, MODEL)) { SafeTensors.write(model, it) }
        if (residual.isNotEmpty()) disk.writeWhole(File(partial, RESIDUAL)) { SafeTensors.write(residual, it) }
        val sha256 = onStorage("cannot read the update") { FileHash.of(File(partial, UPDATE)) }
        val said = report.copy(updateSha256 = sha256)
        disk.writeWhole(File(partial, FACTS)) { it.write(said.toJson().toString().toByteArray()) }
        rename(partial, file(REPORT))
    }

    /** Finished work that is not known to count. */
    fun report(): FinishedReport? = read("$REPORT/$FACTS", ::finishedReport)

    /** The finished work's update. */
    fun update(): File = file("$REPORT/$UPDATE")

    /** The report counts: what follows from that is up to [settle], now or at the next start. */
    fun acknowledge() = rename(file(REPORT), file(REPORTED))

    /** Do what is left to do of a report that counts; nothing is fine. */
    fun settle() {
        val reported = file(REPORTED)
        val said = read("$REPORTED/$FACTS", ::finishedReport) ?: return disk.deleteAll(reported)
        // First what gives room back.
        disk.deleteAll(File(reported, UPDATE))
        for (name in listOf(RESIDUAL, MODEL)) if (File(reported, name).isFile) rename(File(reported, name), file(name))
        history.note(said.record)
        disk.deleteAll(file("assignment.json"))
        disk.deleteAll(File(reported, FACTS))
        disk.deleteAll(reported)
    }

    /** Work under way and finished is nothing any more; [record] says why. */
    fun giveUp(record: RoundRecord) {
        disk.deleteAll(file("assignment.json"))
        val gone = file(".report.gone")
        disk.deleteAll(gone)
        if (file(REPORT).exists()) rename(file(REPORT), gone)
        disk.deleteAll(gone)
        history.note(record)
    }

    /** The service knows the credential no more, and so nothing that was done under it. */
    fun dropCredential() {
        for (name in listOf(REPORT, RESIDUAL, "assignment.json", "credential.json")) disk.deleteAll(file(name))
    }

    /**
     * Delete everything, the credential last: until then the service can be told again.
     *
     * Nothing is kept from then on until a credential is.
     */
    fun forget() {
        for (inner in folder.listFiles().orEmpty()) if (inner.name != "credential.json") disk.deleteAll(inner)
        disk.deleteAll(folder)
    }

    private fun makeFolders() = onStorage("cannot make ${folder.name}") {
        disk.makeFolder(folder)
        disk.makeFolder(file("bundles"))
    }

    private fun file(name: String) = File(folder, name)

    private fun <T> read(name: String, of: (CheckedJson) -> T): T? {
        val file = file(name)
        if (!file.isFile) return null
        return message(onStorage("cannot read $name") { file.readText() }, name, of)
    }

    private fun write(name: String, json: JSONObject) =
        disk.writeWhole(file(name)) { it.write(json.toString().toByteArray()) }

    private fun rename(from: File, to: File) = onStorage("cannot rename ${from.name}") {
        disk.move(from, to)
        disk.sync(folder)
    }

    private fun FinishedReport.toJson() = jsonOf(
        "assignment_id" to assignmentId,
        "update_sha256" to updateSha256,
        "deadline_wall_s" to deadlineWallS,
        "facts" to facts.toJson(),
        "record" to record.toJson(),
    )

    private fun finishedReport(fields: CheckedJson) = FinishedReport(
        assignmentId = fields.whole("assignment_id"),
        updateSha256 = fields.text("update_sha256"),
        deadlineWallS = fields.number("deadline_wall_s"),
        facts = ReportFacts.of(fields.part("facts")),
        record = RoundRecord.of(fields.part("record")),
    )

    private companion object {
        const val REPORT = "report"
        const val REPORTED = "reported"
        const val UPDATE = "update.safetensors"
        const val MODEL = "model.safetensors"
        const val RESIDUAL = "residual.safetensors"
        const val FACTS = "facts.json"
    }
}
