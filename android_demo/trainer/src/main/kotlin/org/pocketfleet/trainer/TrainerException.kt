package org.pocketfleet.trainer

import org.pocketfleet.core.PocketfleetException

/** The runtime does not run a program that the bundle holds; nothing of the call counts. */
class TrainerException(message: String, cause: Throwable? = null) : PocketfleetException(message, cause)
