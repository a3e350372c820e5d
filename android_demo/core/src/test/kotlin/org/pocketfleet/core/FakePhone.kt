package org.pocketfleet.core

import java.io.File
import java.io.IOException
import kotlinx.coroutines.yield

/** A phone on which an hour passes at once. */
class FakeClock(var nowS: Double = 1000.0) : Clock {
    /** What was slept for, in seconds. */
    val slept = mutableListOf<Double>()

    override fun elapsedS(): Double = nowS

    // Any date: the two clocks differ by more than either shows.
    override fun wallS(): Double = nowS + 1.7e9

    override suspend fun sleep(seconds: Double) {
        yield()
        slept += seconds
        nowS += seconds
    }
}

/** Sensors that show what a test lets them; [reads] counts looks. */
class FakeSensors(var conditions: PhoneConditions = ABLE) : Sensors {
    var reads = 0
        private set
    var beforeRead: (Int) -> Unit = {}

    override fun read(): PhoneConditions {
        reads += 1
        beforeRead(reads)
        return conditions
    }

    companion object {
        /** A phone that may train by any usual rule. */
        val ABLE = PhoneConditions(
            idle = true,
            charging = true,
            unmetered = true,
            batteryRatio = 0.8,
            freeMemoryBytes = 1L shl 30,
            thermalStatus = 0,
            skinCelsius = 30.0,
        )
    }
}

/** The process ends here, as a phone ends it: nothing behind this is done. */
class Killed : Error("killed")

/**
 * A real disk that does not wait for the storage, counts every change, and ends the process at one of them or is full
 * from one of them on.
 */
class FaultyDisk(
    private val killedAt: Int = 0,
    private val fullFrom: Int = 0,
    private val freeBytes: Long = Long.MAX_VALUE,
) : Disk {
    /** Changes so far, each write of a file's bytes among them. */
    var changes = 0
        private set

    override fun create(file: File): DiskFile = opened(taking { PhoneDisk.create(file) })

    override fun append(file: File): DiskFile = opened(taking { PhoneDisk.append(file) })

    override fun move(from: File, to: File) = change { PhoneDisk.move(from, to) }

    override fun copy(from: File, to: File) = taking { PhoneDisk.copy(from, to) }

    override fun delete(file: File) = change { PhoneDisk.delete(file) }

    override fun makeFolder(folder: File) = if (folder.isDirectory) Unit else taking { PhoneDisk.makeFolder(folder) }

    override fun sync(folder: File) = change { }

    override fun freeBytes(folder: File): Long = freeBytes

    private fun <T> change(call: () -> T): T {
        changes += 1
        if (changes == killedAt) throw Killed()
        return call()
    }

    /** A change that needs room. */
    private fun <T> taking(call: () -> T): T = change {
        if (fullFrom in 1..changes) throw IOException("No space left on device")
        call()
    }

    private fun opened(file: DiskFile) = object : DiskFile() {
        override fun write(value: Int) = write(byteArrayOf(value.toByte()), 0, 1)

        override fun write(bytes: ByteArray, from: Int, count: Int) {
            try {
                taking { file.write(bytes, from, count) }
            } catch (fault: Throwable) {
                // What dies in the middle of a write leaves half of it.
                file.write(bytes, from, count / 2)
                throw fault
            }
        }

        override fun sync() = change { }

        override fun close() = file.close()
    }
}
