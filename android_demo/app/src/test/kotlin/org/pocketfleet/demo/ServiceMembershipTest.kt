package org.pocketfleet.demo

import kotlinx.coroutines.runBlocking
import org.junit.Rule
import org.junit.rules.TemporaryFolder
import org.pocketfleet.core.Clock
import org.pocketfleet.core.DeviceStore
import org.pocketfleet.core.HttpAnswer
import org.pocketfleet.core.HttpRequest
import org.pocketfleet.core.HttpTransport
import org.pocketfleet.core.PhoneIdentity
import org.pocketfleet.core.Retries
import org.pocketfleet.core.ServiceClient
import java.io.File
import java.io.IOException
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class ServiceMembershipTest {
    @get:Rule
    val folder = TemporaryFolder()

    private class Answer(override val status: Int, text: String) : HttpAnswer {
        private val body = text.byteInputStream()

        override fun header(name: String): String? = null

        override suspend fun read(into: ByteArray): Int = body.read(into)
    }

    /** Answers as the service does, by the request's last word; what is not told is not reached. */
    private class Link(private val answers: Map<String, Pair<Int, String>>) : HttpTransport {
        val asked = mutableListOf<String>()

        override suspend fun <T> exchange(request: HttpRequest, read: suspend (HttpAnswer) -> T): T {
            asked += "${request.method} ${request.url} ${request.headers["Authorization"].orEmpty()}".trim()
            val (status, text) = answers[request.url.substringAfterLast('/')] ?: throw IOException("no route to host")
            return read(Answer(status, text))
        }
    }

    private val clock = object : Clock {
        override fun elapsedS() = 0.0

        override fun wallS() = 0.0

        override suspend fun sleep(seconds: Double) = Unit
    }
    private val store by lazy { DeviceStore(File(folder.root, "device")) }
    private val url = "https://host/v1/populations/main"
    private val enrolled = 201 to """{"device_id": "d1", "credential": "d1.secret"}"""
    private val done = 204 to ""

    private fun refusal(status: Int, code: String) = status to """{"error": {"code": "$code", "message": "because"}}"""

    private fun membership(link: Link) = ServiceMembership(store, PhoneIdentity("Pixel 8", "Google", "Android 14", 8, "app")) { to, secret ->
        ServiceClient(to, link, Retries(clock, seed = 1), secret)
    }

    private fun problem(ask: suspend () -> Unit) = assertFailsWith<MembershipException> { runBlocking { ask() } }.problem

    @Test
    fun `a token becomes a credential, which every further word is said with`() = runBlocking {
        val link = Link(mapOf("enrol" to enrolled, "pause" to done, "resume" to done, "leave" to done))
        val membership = membership(link)
        assertFalse(membership.joined)
        membership.join(url, "token")
        assertTrue(membership.joined)
        membership.pause()
        membership.resume()
        membership.leave()
        assertFalse(membership.joined)
        val secret = "Bearer d1.secret"
        assertEquals(listOf("POST $url/enrol", "POST $url/pause $secret", "POST $url/resume $secret", "POST $url/leave $secret"), link.asked)
    }

    @Test
    fun `to be forgotten is to delete the device`() = runBlocking {
        val link = Link(mapOf("enrol" to enrolled, "device" to done))
        val membership = membership(link)
        membership.join(url, "token")
        membership.forget()
        assertEquals("DELETE $url/device Bearer d1.secret", link.asked.last())
        // The credential goes with the data, after them.
        assertTrue(membership.joined)
        store.forget()
        assertFalse(membership.joined)
    }

    @Test
    fun `who is out already has got what was asked for`() = runBlocking {
        for (code in listOf("left", "forgotten", "revoked", "wrong_credential", "no_credential")) {
            val out = refusal(403, code)
            val membership = membership(Link(mapOf("enrol" to enrolled, "leave" to out, "device" to out)))
            membership.join(url, "token")
            membership.forget()
            assertTrue(membership.joined, code)
            membership.leave()
            assertFalse(membership.joined, code)
        }
    }

    @Test
    fun `a refusal is told, and the credential kept`() {
        assertEquals(
            Problem.Kind.REFUSED,
            problem { membership(Link(mapOf("enrol" to refusal(401, "wrong_token")))).join(url, "token") }.kind,
        )
        assertFalse(membership(Link(emptyMap())).joined)
        runBlocking { membership(Link(mapOf("enrol" to enrolled))).join(url, "token") }
        val refused = problem { membership(Link(mapOf("leave" to refusal(429, "busy").copy(first = 400)))).leave() }
        assertEquals(Problem.Kind.REFUSED, refused.kind)
        assertTrue("because" in refused.detail)
        assertTrue(membership(Link(emptyMap())).joined)
    }

    @Test
    fun `a service that is not reached is told, and the credential kept`() {
        runBlocking { membership(Link(mapOf("enrol" to enrolled))).join(url, "token") }
        val link = Link(emptyMap())
        val membership = membership(link)
        for (ask in listOf<suspend () -> Unit>(membership::pause, membership::leave, membership::forget)) {
            val found = problem(ask)
            assertEquals(Problem.Kind.NOT_REACHED, found.kind)
            assertTrue("no route to host" in found.detail)
        }
        assertTrue(membership.joined)
        // Somebody waits: three tries each, no more.
        assertEquals(9, link.asked.size)
    }

    @Test
    fun `an answer that is none of the protocol is told`() {
        val found = problem { membership(Link(mapOf("enrol" to (200 to "<html>")))).join(url, "token") }
        assertEquals(Problem.Kind.REFUSED, found.kind)
        assertFalse(membership(Link(emptyMap())).joined)
    }
}
