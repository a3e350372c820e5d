package org.pocketfleet.core

import java.io.IOException
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlinx.coroutines.runBlocking
import org.junit.Test

/** How often something is said, over a transport whose answers a test lists. */
class ServiceClientTest {
    private class Answer(
        override val status: Int,
        text: String = "{}",
        private val headers: Map<String, String> = emptyMap(),
    ) : HttpAnswer {
        private val body = text.byteInputStream()

        override fun header(name: String): String? = headers[name]

        override suspend fun read(into: ByteArray): Int = body.read(into)
    }

    /** Gives [answers] in their order; null: the connection fails. */
    private class Listed(vararg answers: Answer?) : HttpTransport {
        private val left = answers.toMutableList()
        val asked = mutableListOf<HttpRequest>()

        override suspend fun <T> exchange(request: HttpRequest, read: suspend (HttpAnswer) -> T): T {
            asked += request
            return read(left.removeAt(0) ?: throw IOException("connection refused"))
        }
    }

    private val clock = FakeClock()
    private val enrolled get() = Answer(201, """{"device_id": "d", "credential": "c"}""")
    private val enrolment = Enrolment("t")

    private fun client(http: HttpTransport, seed: Long = 1, tell: (String) -> Unit = {}) =
        ServiceClient("https://host/v1/populations/p/", http, Retries(clock, seed, tell))

    private fun enrol(http: HttpTransport, patience: Patience = Patience(), seed: Long = 1): Enrolled =
        runBlocking { client(http, seed).enrol(enrolment, patience) }

    @Test
    fun `the back-off doubles up to half a minute, and a drawn half of it at most is left out`() {
        val failures = 12
        enrol(Listed(*arrayOfNulls<Answer>(failures), enrolled))
        val full = List(failures) { minOf(0.25 * (1 shl it), 30.0) }
        for ((slept, whole) in clock.slept.zip(full)) assertTrue(slept in whole / 2..whole, "$slept of $whole")
        assertEquals(failures, clock.slept.distinct().size)
        // The draws of the service's own client, for the same device.
        val share = Draws.uniform(Draws.key(1, "service.back_off", 1), 1)[0]
        assertEquals(0.25 * (1.0 - 0.5 * share), clock.slept.first())
    }

    @Test
    fun `devices do not come together`() {
        for (seed in 1L..20L) enrol(Listed(null, enrolled), seed = seed)
        assertEquals(20, clock.slept.distinct().size)
    }

    @Test
    fun `trying ends after so many tries, or where the time would be over`() {
        val three = Listed(null, Answer(500), null)
        val exc = assertFailsWith<Unreachable> { enrol(three, Patience(tries = 3)) }
        assertTrue("connection refused" in exc.message!!, exc.message)
        assertEquals(2, clock.slept.size)
        clock.slept.clear()
        val busy = Answer(503, headers = mapOf("Retry-After" to "60"))
        assertFailsWith<Unreachable> { enrol(Listed(busy), Patience(untilS = clock.nowS + 60)) }
        assertEquals(emptyList(), clock.slept)
    }

    @Test
    fun `what Retry-After says is waited for, where it says something`() {
        val answers = listOf("3", "0", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "NaN").map {
            Answer(429, headers = mapOf("Retry-After" to it))
        }
        enrol(Listed(*answers.toTypedArray(), enrolled))
        assertEquals(listOf(3.0, 0.0, 0.0), clock.slept.take(3))
        assertTrue(clock.slept.drop(3).all { it > 0.0 }, "${clock.slept}")
    }

    @Test
    fun `a refusal is final, and says what the service said`() {
        for (status in listOf(400, 401, 403, 404, 409, 422)) {
            val refusal = Answer(status, """{"error": {"code": "c", "message": "m", "more": 1}}""")
            val exc = assertFailsWith<Refused> { enrol(Listed(refusal)) }
            assertEquals(Triple(status, "c", "m ($status c)"), Triple(exc.status, exc.code, exc.message))
        }
        for (page in listOf("<html>", "{}", """{"error": "x"}""")) {
            assertEquals("unknown", assertFailsWith<Refused> { enrol(Listed(Answer(404, page))) }.code)
        }
        assertEquals(302, assertFailsWith<Refused> { enrol(Listed(Answer(302))) }.status)
        assertEquals(emptyList(), clock.slept)
    }

    @Test
    fun `an answer that is none of the protocol is named`() {
        val exc = assertFailsWith<FormatException> { enrol(Listed(Answer(201, """{"device_id": 7}"""))) }
        assertEquals("the answer to POST enrol: device_id must be a text, got 7", exc.message)
        assertFailsWith<FormatException> { enrol(Listed(Answer(200, "a".repeat(2 shl 20)))) }
    }

    @Test
    fun `the credential goes along once it is there, and nothing is compressed on the way`() {
        val http = Listed(enrolled, Answer(204))
        val client = client(http)
        runBlocking {
            client.credential = client.enrol(enrolment, Patience()).credential
            client.leave(Patience())
        }
        assertEquals(null, http.asked[0].headers["Authorization"])
        assertEquals("Bearer c", http.asked[1].headers["Authorization"])
        assertEquals("https://host/v1/populations/p/leave", http.asked[1].url)
        assertTrue(http.asked.all { it.headers["Accept-Encoding"] == "identity" })
    }

    @Test
    fun `people are told once when it takes long`() {
        val told = mutableListOf<String>()
        val http = Listed(*arrayOfNulls<Answer>(8), enrolled)
        runBlocking { client(http, tell = { told += it }).enrol(enrolment, Patience()) }
        assertEquals(listOf("the service cannot be reached, still trying: connection refused"), told)
    }

    @Test
    fun `a URL that is no population's is refused`() {
        val whole = "https://host/v1/populations/p"
        assertEquals(whole, ServiceClient("$whole/", Listed(), Retries(clock, 1)).url)
        val wrong = listOf("", "host", "ftp${whole.drop(5)}", "https://host/", "$whole/q", whole.dropLast(1), "$whole ")
        for (url in wrong) {
            val exc = assertFailsWith<FormatException>(url) { ServiceClient(url, Listed(), Retries(clock, 1)) }
            assertTrue("\"$url\"" in exc.message!!, exc.message)
        }
    }
}
