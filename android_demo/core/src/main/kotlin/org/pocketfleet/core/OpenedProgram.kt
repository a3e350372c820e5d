package org.pocketfleet.core

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.withContext

/**
 * What [call] computes by the bundle's programs.
 *
 * @throws GivenUp they cannot be opened or do not take what they are given: begun anew, they would fail again.
 */
internal suspend fun <T> RoundParts.opened(bundle: VerifiedBundle, call: suspend (Trainer) -> T): T =
    withContext(compute) {
        try {
            trainers.open(bundle).use { call(it) }
        } catch (exc: CancellationException) {
            // An IllegalStateException by its type, and no failure.
            throw exc
        } catch (exc: StorageException) {
            throw exc
        } catch (exc: PocketfleetException) {
            throw failed(exc)
        } catch (exc: IllegalArgumentException) {
            // Such as examples of another task than the program's.
            throw failed(exc)
        } catch (exc: IllegalStateException) {
            throw failed(exc)
        } catch (exc: LinkageError) {
            // A native library that is not for this phone. The message may be a class's name and no more.
            throw GivenUp("the program failed: $exc", exc)
        } catch (exc: OutOfMemoryError) {
            throw GivenUp("out_of_memory", exc)
        }
    }

private fun failed(exc: Exception) = GivenUp("the program failed: ${exc.message ?: exc}", exc)
