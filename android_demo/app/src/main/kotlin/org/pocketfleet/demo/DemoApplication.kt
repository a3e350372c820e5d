package org.pocketfleet.demo

import android.app.Application
import android.os.Build
import android.util.Log
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import org.pocketfleet.core.AppAbilities
import org.pocketfleet.core.DeviceStore
import org.pocketfleet.core.PhoneIdentity
import org.pocketfleet.core.PocketfleetException
import org.pocketfleet.core.Retries
import org.pocketfleet.core.RoundLoop
import org.pocketfleet.core.RoundOutcome
import org.pocketfleet.core.RoundParts
import org.pocketfleet.core.ServiceClient
import org.pocketfleet.core.TrainerFactory
import org.pocketfleet.core.UrlConnectionTransport
import org.pocketfleet.trainer.ExecutorchTrainer
import java.io.File

/** Puts the app's parts together; each is made when it is first asked for, in whichever process asks. */
class DemoApplication : Application() {
    /** When training happens. */
    val calendar by lazy { JobCalendar(this) }

    /** The notice while it happens. */
    val notice by lazy { TrainingNotice(this) }

    /** The screen's state, which outlives the screen. */
    val model by lazy {
        DemoModel(
            scope = CoroutineScope(SupervisorJob() + MainThread),
            io = Dispatchers.IO,
            membership = ServiceMembership(keepsakes.device, identity, ::client),
            keepsakes = keepsakes,
            calendar = calendar,
            predictor = DevicePredictor(keepsakes.device, trainers) { keepsakes.settings.task },
            form = HouseForm(resources.getStringArray(R.array.house_columns).toList(), getString(R.string.price)),
            stage = stage,
            visiting = visiting,
        )
    }

    /** Whether the user wants it, and the service takes it; not where the files cannot be read that would tell. */
    val mayTrain: Boolean
        get() = try {
            keepsakes.settings.consents && !keepsakes.settings.paused && keepsakes.device.credential() != null
        } catch (exception: PocketfleetException) {
            Log.e("pocketfleet", "nothing is trained", exception)
            false
        }

    /** Which ExecuTorch this is built with: each build has its own. */
    val executorch: String get() = getString(R.string.executorch_version)

    private val sensors by lazy { PhoneSensors(this) }
    private val stage = MutableStateFlow<Stage>(Stage.Resting)
    private val trainers = TrainerFactory { ExecutorchTrainer.open(it) }

    // What the phone learnt and who it is to the service stay on this phone: in no backup, and in no move to another.
    private val keepsakes by lazy {
        val folder = noBackupFilesDir
        Keepsakes(DemoSettings(File(folder, "settings.json")), folder, DeviceStore(File(folder, "device")))
    }
    private val identity by lazy {
        PhoneIdentity(
            model = Build.MODEL,
            manufacturer = Build.MANUFACTURER,
            osVersion = "Android ${Build.VERSION.RELEASE}",
            memoryBytes = sensors.memoryBytes(),
            appVersion = VERSION,
        )
    }

    // A job that was stopped may still end its step when the next one begins.
    private val visiting = Mutex()

    /** One job's worth of visits: seconds until the next, null: never. For a job, on a thread of its own. */
    suspend fun visit(): Double? = visiting.withLock {
        VisitLoop(::come, PhoneClock, stage).run()
    }

    /** A client of this phone's own service; null: it is no member. */
    fun member(): ServiceClient? = keepsakes.device.credential()?.let { client(it.url, it.secret) }

    /** A client of the service at [url]. */
    fun client(url: String, credential: String): ServiceClient {
        // Devices draw their back-offs apart.
        val retries = Retries(PhoneClock, seed = (PhoneClock.wallS() * MILLIS).toLong())
        return ServiceClient(url, UrlConnectionTransport(Dispatchers.IO), retries, credential)
    }

    private suspend fun come(): RoundOutcome {
        val credential = keepsakes.device.credential() ?: return RoundOutcome.Revoked
        val parts = RoundParts(
            service = client(credential.url, credential.secret),
            store = keepsakes.device,
            examples = keepsakes.examples(keepsakes.settings.task),
            sensors = sensors,
            clock = PhoneClock,
            trainers = trainers,
            abilities = AppAbilities(mapOf(BundleFacts.RUNTIME to executorch), VERSION),
            compute = Dispatchers.Default,
        )
        return RoundLoop(parts).visit()
    }

    companion object {
        /** As the app tells it of itself; both builds put its number into the manifest. */
        const val VERSION = "pocketfleet-demo 0.1.0"

        private const val MILLIS = 1000
    }
}
