package org.pocketfleet.demo

import org.pocketfleet.core.DeviceStore
import java.io.File

/** What the phone keeps on its disk, one file a noun. */
class Keepsakes(val settings: DemoSettings, private val folder: File, val device: DeviceStore) {
    private val examples = DemoTask.entries.associateWith { OwnExamples(File(folder, "examples-${it.word}.bin"), it) }

    /** The user's examples of one task. */
    fun examples(task: DemoTask): OwnExamples = examples.getValue(task)

    /** Delete everything that was learnt from the user, and the choice to take part; the credential last. */
    fun forget() {
        settings.change(consents = false, paused = false)
        examples.values.forEach(OwnExamples::clear)
        device.forget()
    }
}
