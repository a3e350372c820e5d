package org.pocketfleet.core

/** What this package refuses; subclasses tell whose fault it is. The message is for people. */
abstract class PocketfleetException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** A peer's text or bytes are not what they must be. */
class FormatException(message: String, cause: Throwable? = null) : PocketfleetException(message, cause)

/** A bundle's folder does not hold what its manifest says: nothing of it may be opened. */
class BundleException(message: String, cause: Throwable? = null) : PocketfleetException(message, cause)
