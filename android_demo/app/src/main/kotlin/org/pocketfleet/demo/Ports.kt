package org.pocketfleet.demo

/** The phone's place in a population, as the screen acts on it. Every call but [joined] reaches the service. */
interface Membership {
    /** Whether the service gave this phone a credential that it still has. */
    val joined: Boolean

    /** Enrol at [address], the one that the service prints, with a one-time [token]. */
    suspend fun join(address: String, token: String)

    /** Tell the service that the user wants a rest. */
    suspend fun pause()

    /** Tell the service that the rest is over. */
    suspend fun resume()

    /** Take part no more; what was reported stays counted. The credential is gone afterwards. */
    suspend fun leave()

    /**
     * Take part no more, and the service deletes what this phone said of itself. The credential is still here
     * afterwards: it goes last of all that is deleted here, so that what broke off can be asked for again.
     */
    suspend fun forget()
}

/** The service did not do what a [Membership] asked; [problem] is for the screen. */
class MembershipException(val problem: Problem, cause: Throwable? = null) : Exception(problem.detail, cause)

/** When training happens: by the system's own jobs, never by the screen. */
interface Calendar {
    /** Visit the service when the phone has its moment, but not before [afterS] seconds. */
    fun come(afterS: Double)

    /** Likewise now, unless it is planned: a phone that was restarted has forgotten. */
    fun ensure()

    /** Come no more; a visit under way stops within a step. */
    fun cancel()
}

/** The phone's own model, or the service's where it has trained none yet. */
fun interface Predictor {
    /** The output for one example; null: there is no model yet. */
    suspend fun predict(x: FloatArray): FloatArray?
}
