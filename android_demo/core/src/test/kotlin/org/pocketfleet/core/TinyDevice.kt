package org.pocketfleet.core

import java.io.File
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.runBlocking

/** One device on a folder, made anew for each life of its process. */
class TinyDevice(
    private val service: TinyService,
    folder: File,
    disk: Disk = FaultyDisk(),
    val sensors: FakeSensors = FakeSensors(),
    beforeStep: (Int) -> Unit = {},
    numExamples: Int = 12,
    val clock: FakeClock = FakeClock(),
    beforeOpen: () -> Unit = {},
) {
    val store = DeviceStore(folder, disk)

    /** Those that were opened. */
    val trainers = mutableListOf<LinearTrainer>()
    private val parts = RoundParts(
        service = ServiceClient(
            service.url,
            UrlConnectionTransport(Dispatchers.IO, readTimeoutS = 5),
            Retries(clock, seed = 7),
            TinyService.CREDENTIAL,
        ),
        store = store,
        examples = PlaneExamples(numExamples),
        sensors = sensors,
        clock = clock,
        trainers = { bundle ->
            check(bundle.program.readBytes().contentEquals(service.model.files.getValue(Manifest.PTE_FILE))) {
                "a program was opened that is not the bundle's"
            }
            beforeOpen()
            LinearTrainer(beforeStep).also { trainers += it }
        },
        abilities = AppAbilities(mapOf("executorch" to "1.5.1"), "test"),
        compute = Dispatchers.Default,
    )
    val loop = RoundLoop(parts)

    /** Steps of all its trainers. */
    val steps: Int get() = trainers.sumOf { it.steps }

    fun visit(): RoundOutcome = runBlocking { loop.visit() }

    companion object {
        /** A folder that a device was enrolled in. */
        fun enrol(service: TinyService, folder: File) {
            DeviceStore(folder, FaultyDisk()).keep(Credential(service.url, "d", TinyService.CREDENTIAL))
        }
    }
}
