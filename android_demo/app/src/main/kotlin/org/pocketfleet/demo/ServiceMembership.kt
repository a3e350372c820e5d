package org.pocketfleet.demo

import org.pocketfleet.core.Credential
import org.pocketfleet.core.DeviceStore
import org.pocketfleet.core.Enrolment
import org.pocketfleet.core.FormatException
import org.pocketfleet.core.Patience
import org.pocketfleet.core.PhoneIdentity
import org.pocketfleet.core.Refused
import org.pocketfleet.core.ServiceClient
import org.pocketfleet.core.Unreachable

/**
 * The membership that a [DeviceStore] keeps, over the service itself.
 *
 * @param client a client of the service at a URL, with a credential or none.
 */
class ServiceMembership(
    private val store: DeviceStore,
    private val phone: PhoneIdentity,
    private val client: (url: String, credential: String) -> ServiceClient,
) : Membership {
    override val joined: Boolean get() = store.credential() != null

    override suspend fun join(address: String, token: String) = told {
        val service = client(address, "")
        val enrolled = service.enrol(Enrolment(token, phone), PATIENCE)
        store.keep(Credential(service.url, enrolled.deviceId, enrolled.credential))
    }

    override suspend fun pause() = told { member()?.pause(PATIENCE) }

    override suspend fun resume() = told { member()?.resume(PATIENCE) }

    override suspend fun leave() = told {
        unlessOut { it.leave(PATIENCE) }
        store.dropCredential()
    }

    override suspend fun forget() = told { unlessOut { it.forgetMe(PATIENCE) } }

    /** Whoever is out already, by the service's own word, has got what was asked for. */
    private suspend fun unlessOut(ask: suspend (ServiceClient) -> Unit) {
        try {
            member()?.let { ask(it) }
        } catch (refused: Refused) {
            if (refused.code !in OUT) throw refused
        }
    }

    private fun member(): ServiceClient? = store.credential()?.let { client(it.url, it.secret) }

    private suspend fun told(ask: suspend () -> Unit) {
        try {
            ask()
        } catch (exception: Unreachable) {
            throw MembershipException(Problem(Problem.Kind.NOT_REACHED, exception.message.orEmpty()), exception)
        } catch (exception: Refused) {
            throw MembershipException(Problem(Problem.Kind.REFUSED, exception.message.orEmpty()), exception)
        } catch (exception: FormatException) {
            throw MembershipException(Problem(Problem.Kind.REFUSED, exception.message.orEmpty()), exception)
        }
    }

    private companion object {
        // Somebody waits in front of the screen: some seconds.
        val PATIENCE = Patience(tries = 3)

        // The service's words for a device that takes part no more, or that it never knew.
        val OUT = setOf("left", "forgotten", "revoked", "wrong_credential", "no_credential")
    }
}
