package org.pocketfleet.core

import java.io.File
import java.io.IOException
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.Rule as JUnitRule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** What is kept, on the real disk. */
class DeviceStoreTest {
    @get:JUnitRule
    val folder = TemporaryFolder()
    private val place get() = File(folder.root, "device")
    private val store by lazy { DeviceStore(place) }
    private val credential = Credential("https://host/v1/populations/p", "d", "c")
    private val hash = "ab".repeat(32)

    private fun record(id: Long, outcome: String = "accepted") =
        RoundRecord(id, 1, 2, outcome, 3.5, 6, 0.25, "loss", 1.0, 0.5)

    private fun finished(id: Long) = FinishedReport(id, "", 99.5, ReportFacts(20, 6, 12, 0.25), record(id))

    private val residual = mapOf("w" to HostTensor.of(floatArrayOf(5f, 6f), 2))

    private fun finish(id: Long) =
        store.finish(finished(id), LinearModel.weights(1f, 2f), LinearModel.weights(3f, 4f, seen = id), residual)

    @Test
    fun `what was kept is there for the next process`() {
        assertNull(store.credential())
        assertEquals(Rule(), store.rule())
        store.keep(credential)
        store.keep(Rule(idle = false, minExamples = 7))
        store.keep(ReleasedModel(4, FileEntry(hash, 8)))
        store.keepBundle(FileEntry(hash, 9), neededMemoryBytes = 7, downloadBits = 4)
        val next = DeviceStore(place)
        assertEquals(credential, next.credential())
        assertEquals(Rule(idle = false, minExamples = 7), next.rule())
        assertEquals(ReleasedModel(4, FileEntry(hash, 8)), next.released())
        assertEquals(FileEntry(hash, 9), next.bundle())
        assertEquals(7, next.neededMemoryBytes())
        assertEquals(4, next.downloadBits())
    }

    @Test
    fun `a report is what was finished, until it counts`() {
        finish(5)
        val next = DeviceStore(place)
        val sha256 = FileHash.of(LinearModel.bytes(LinearModel.weights(1f, 2f)))
        assertEquals(finished(5).copy(updateSha256 = sha256), next.report())
        assertEquals(sha256, FileHash.of(next.update()))
        assertNull(next.ownModel(), "a model took effect before its report counts")
        assertEquals(emptyMap(), next.residual(), "a residual took effect before its report counts")
        next.acknowledge()
        DeviceStore(place).settle()
        assertContentEquals(LinearModel.bytes(LinearModel.weights(3f, 4f, seen = 5)), next.ownModel()!!.readBytes())
        assertContentEquals(LinearModel.bytes(residual), LinearModel.bytes(next.residual()))
        assertEquals(listOf(record(5)), next.rounds())
        assertNull(next.report())
        DeviceStore(place).settle()
        assertEquals(listOf(record(5)), next.rounds(), "it was remembered twice")
    }

    @Test
    fun `what is given up leaves a line and nothing else`() {
        finish(5)
        store.giveUp(record(5, "late"))
        assertNull(store.report())
        assertNull(store.ownModel())
        assertEquals(listOf("late"), store.rounds().map { it.outcome })
        assertEquals(setOf("bundles", "rounds.jsonl"), place.list()!!.toSet())
    }

    @Test
    fun `what one service was not told is not for another`() {
        finish(5)
        store.acknowledge()
        store.settle()
        store.dropCredential()
        assertEquals(emptyMap(), store.residual())
        assertEquals(setOf("bundles", "model.safetensors", "rounds.jsonl"), place.list()!!.toSet())
    }

    @Test
    fun `a line that a crash tore costs no other`() {
        store.giveUp(record(1))
        File(place, "rounds.jsonl").appendText("""{"assignment_id": 2, "rou""")
        store.giveUp(record(3))
        assertEquals(listOf(1L, 3L), store.rounds().map { it.assignmentId })
    }

    @Test
    fun `forgetting deletes everything`() {
        store.keep(credential)
        finish(5)
        store.downloads.partial(FileEntry(hash, 3)).append().use { it.write(1) }
        store.forget()
        assertFalse(place.exists())
    }

    @Test
    fun `what forgot everything can keep something again`() {
        store.keep(credential)
        store.forget()
        assertNull(store.credential())
        store.keep(credential)
        assertEquals(credential, DeviceStore(place).credential())
    }

    @Test
    fun `an attempt is remembered once, and another one of its number too`() {
        store.giveUp(record(0))
        store.giveUp(record(0))
        assertEquals(listOf(record(0)), store.rounds())
        // Each service counts from its own beginning.
        val other = record(0).copy(wallS = 4.5)
        store.giveUp(other)
        assertEquals(listOf(record(0), other), store.rounds())
    }

    @Test
    fun `who dies while it forgets knows to whom to say so`() {
        TinyService().use { service ->
            TinyDevice.enrol(service, place)
            TinyDevice(service, place).visit()
        }
        var changes = 0
        do {
            changes += 1
            val isKilled = try {
                DeviceStore(place, FaultyDisk(killedAt = changes)).forget()
                false
            } catch (_: Killed) {
                true
            }
            // Until nothing else is left.
            if (isKilled && place.list()!!.size > 1) assertTrue(File(place, "credential.json").exists())
        } while (isKilled && place.exists())
        assertTrue(changes > 1)
    }

    @Test
    fun `a file of ours that is damaged is named`() {
        store.keep(credential)
        File(place, "credential.json").writeText("{\"url\": ")
        val exc = assertFailsWith<FormatException> { store.credential() }
        assertTrue(exc.message!!.startsWith("credential.json: "), exc.message)
    }

    @Test
    fun `a download that the storage damaged is there no more`() {
        val content = "bytes".toByteArray()
        val entry = LinearModel.entry(content)
        val partial = store.downloads.partial(entry)
        partial.append().use { it.write(content) }
        val file = partial.finished()!!
        assertEquals(file, store.downloads.held(entry))
        file.writeText("bytez")
        assertNull(store.downloads.held(entry))
        assertFalse(file.exists())
    }

    @Test
    fun `only what is in use stays`() {
        val entries = listOf("one", "two", "three").map { LinearModel.entry(it.toByteArray()) to it }
        for ((entry, text) in entries) {
            val partial = store.downloads.partial(entry)
            partial.append().use { it.write(text.toByteArray()) }
            if (text != "three") partial.finished()
        }
        store.downloads.assemble("m1", emptyMap())
        store.downloads.assemble("m2", mapOf("a" to store.downloads.held(entries[0].first)!!))
        store.downloads.keepOnly(listOf(entries[1].first), "m2")
        assertEquals(listOf(entries[1].first.sha256), File(place, "files").list()!!.toList())
        assertEquals(listOf("m2"), File(place, "bundles").list()!!.toList())
        assertEquals("one", File(store.downloads.bundle("m2"), "a").readText())
    }

    @Test
    fun `a full storage is told apart from a broken one`() {
        val messages = mapOf(
            "No space left on device" to true,
            "write failed: ENOSPC (No space left on device)" to true,
            "Disk quota exceeded" to true,
            "Input/output error" to false,
        )
        for ((message, isFull) in messages) {
            assertEquals(isFull, StorageException("m", IOException("outer", IOException(message))).isFull, message)
        }
        val full = DeviceStore(place, FaultyDisk(fullFrom = 3))
        val exc = assertFailsWith<StorageException> { full.keep(credential) }
        assertTrue(exc.isFull)
        assertEquals("cannot write credential.json: No space left on device", exc.message)
        assertNull(store.credential())
    }
}
