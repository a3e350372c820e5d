package org.pocketfleet.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.json.JSONObject

class EligibilityTest {
    private val file = RepositoryFile.json("tests/eligibility_cases.json")

    @Test
    fun everyCaseIsJudgedAsItSays() {
        val cases = file.getJSONArray("cases").objects()
        assertTrue(cases.size >= 40)
        val wrong = cases.mapNotNull { case ->
            val wanted = if (case.isNull("expected")) null else case.getString("expected")
            val found = judged(over(file.getJSONObject("base"), case.getJSONObject("given")))?.word
            if (found == wanted) null else "${case.getString("name")}: must be $wanted, got $found"
        }
        assertEquals(emptyList(), wrong)
    }

    @Test
    fun reasonsAreCalledAndOrderedAsThePythonOnes() {
        assertEquals(
            listOf("no_examples", "low_memory", "in_use", "not_charging", "metered", "low_battery", "too_hot"),
            Ineligible.entries.map { it.word },
        )
    }

    @Test
    fun aRuleThatCannotBeIsRefused() {
        val floor = assertFailsWith<IllegalArgumentException> { Rule(minBatteryRatio = 30.0) }
        assertEquals("min_battery_ratio must be 0 to 1, got 30.0", floor.message)
        val examples = assertFailsWith<IllegalArgumentException> { Rule(minExamples = 0) }
        assertEquals("min_examples must be 1 or more, got 0", examples.message)
    }

    @Test
    fun aPlanOfLessThanNothingIsRefused() {
        val conditions = PhoneConditions(true, true, true, 1.0, 1L shl 30, thermalStatus = 0)
        val refused = assertFailsWith<IllegalArgumentException> { Eligibility.judge(Rule(), conditions, 10, -1) }
        assertEquals("neededMemoryBytes must be 0 or more, got -1", refused.message)
    }

    private fun judged(one: JSONObject): Ineligible? {
        val rule = one.getJSONObject("rule")
        return Eligibility.judge(
            Rule(
                idle = rule.getBoolean("idle"),
                charging = rule.getBoolean("charging"),
                unmetered = rule.getBoolean("unmetered"),
                minBatteryRatio = rule.getDouble("min_battery_ratio"),
                minExamples = rule.getLong("min_examples"),
            ),
            PhoneConditions(
                idle = one.getBoolean("idle"),
                charging = one.getBoolean("charging"),
                unmetered = one.getBoolean("unmetered"),
                batteryRatio = one.getDouble("battery_ratio"),
                freeMemoryBytes = one.getLong("free_memory_bytes"),
                thermalStatus = if (one.isNull("thermal_status")) null else one.getInt("thermal_status"),
                skinCelsius = if (one.isNull("skin_celsius")) null else one.getDouble("skin_celsius"),
            ),
            numExamples = one.getLong("num_examples"),
            neededMemoryBytes = one.getLong("needed_memory_bytes"),
            training = one.getBoolean("training"),
        )
    }

    /** The base with what a case changes; a name that the base lacks would change nothing, and is an error. */
    private fun over(base: JSONObject, given: JSONObject): JSONObject {
        val one = JSONObject(base.toString())
        for (name in given.keys().asSequence().map { it.toString() }) {
            assertTrue(base.has(name), "no condition is called $name")
            val value = given.get(name)
            one.put(name, if (value is JSONObject) over(base.getJSONObject(name), value) else value)
        }
        return one
    }
}
