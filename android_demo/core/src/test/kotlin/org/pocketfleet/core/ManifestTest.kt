package org.pocketfleet.core

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.json.JSONArray
import org.json.JSONObject

class ManifestTest {
    private val file = RepositoryFile.json("tests/android_demo/cases/manifest.json")
    private val sound = file.getJSONObject("manifest").toString()

    @Test
    fun whatAPhoneNeedsIsRead() {
        val manifest = Manifest.parse(sound.toByteArray())
        assertEquals("line", manifest.taskName)
        assertEquals(StepSettings(momentum = true, proximal = true, correction = true), manifest.settings)
        assertEquals(listOf("learning_rate", "momentum", "proximal_mu"), manifest.settings.hyperNames)
        assertEquals(mapOf("learning_rate" to 0.1, "momentum" to 0.9, "proximal_mu" to 0.01), manifest.hyper)
        assertEquals(8, manifest.maxBatch)
        assertEquals("xnnpack", manifest.predict)
        assertEquals(false, manifest.trainingModule)
        assertEquals(mapOf("executorch" to "1.5.1"), manifest.minimumRuntime)
        // As Python adds them up: the step's arena, weights, state, batch.
        assertEquals(4096L + 36 + 48 + 128, manifest.memory.trainingBytes)
        assertEquals(setOf("model.pte", "weights.safetensors", "frozen.safetensors"), manifest.files.keys)
        assertEquals(FileEntry("0".repeat(60) + "1388", 5_000), manifest.files["model.pte"])
    }

    @Test
    fun inputsAndOutputsAreInTheirOrder() {
        val signature = Manifest.parse(sound.toByteArray()).signature
        assertEquals(
            "0.bias 0.weight steps momentum/0.bias momentum/0.weight offset 0.bias 0.weight 0.bias 0.weight x y " +
                "learning_rate momentum proximal_mu 0",
            signature.trainStep.inputs.joinToString(" ") { it.name },
        )
        val x = signature.trainStep.inputs(Role.X).single()
        assertEquals(TensorSpec(Role.X, "x", listOf(TensorSpec.BATCH, 3), ElementType.FLOAT32), x)
        assertContentEquals(longArrayOf(5, 3), x.sizes(batch = 5))
        assertEquals("x/x float32 [batch, 3]", x.toString())
        assertEquals(listOf("mae"), signature.evaluate.outputs(Role.METRIC).map { it.name })
        assertEquals(ElementType.INT64, signature.trainStep.inputs(Role.BUFFER).single().type)
    }

    @Test
    fun everyLieIsRefusedByWhatIsWrong() {
        val lies = file.getJSONArray("lies").objects()
        assertTrue(lies.size >= 35)
        val wrong = lies.mapNotNull { lie ->
            val refused = runCatching { Manifest.parse(told(lie)) }.exceptionOrNull()
            val message = (refused as? FormatException)?.message.orEmpty()
            val wanted = lie.getString("app")
            val name = lie.getString("name")
            if (wanted in message && message.length < 1_000) null else "$name: must say <$wanted>, is $refused"
        }
        assertEquals(emptyList(), wrong)
    }

    @Test
    fun aBundleForAnotherRuntimeIsRefused() {
        val manifest = JSONObject(sound).apply { put("footprint", JSONObject("""{"onnx": {}}""")) }
        val refused = assertFailsWith<FormatException> { Manifest.parse(manifest.toString().toByteArray()) }
        assertEquals("the bundle was exported for [onnx] only, phones run executorch", refused.message)
    }

    @Test
    fun aManifestThatLacksAFileIsRefused() {
        for (name in listOf("model.pte", "weights.safetensors", "frozen.safetensors")) {
            val manifest = JSONObject(sound).apply { getJSONObject("files").remove(name) }
            val refused = assertFailsWith<FormatException> { Manifest.parse(manifest.toString().toByteArray()) }
            assertTrue(refused.message.orEmpty().startsWith("files lacks [$name]"), "$refused")
        }
        val manifest = JSONObject(sound).apply { put("training_module", true) }
        val refused = assertFailsWith<FormatException> { Manifest.parse(manifest.toString().toByteArray()) }
        assertTrue(refused.message.orEmpty().startsWith("files lacks [training_module.pte]"), "$refused")
    }

    @Test
    fun adamsSlotsAreHeldAgainstItsWeights() {
        val settings = StepSettings(optimizer = "adam", weightDecay = true, clipping = true)
        assertEquals(
            listOf("learning_rate", "beta1", "beta2", "epsilon", "weight_decay", "max_norm"),
            settings.hyperNames,
        )
        val weight = TensorSpec(Role.TRAINABLE, "w", listOf(2, 3), ElementType.FLOAT32)
        fun slot(name: String, shape: List<Long>) = TensorSpec(Role.SLOT, name, shape, ElementType.FLOAT32)
        val slots = listOf(
            slot("beta1_power", emptyList()),
            slot("beta2_power", emptyList()),
            slot("first_moment/w", listOf(2, 3)),
            slot("second_moment/w", listOf(2, 3)),
        )
        SignatureRules(signature(weight, slots, settings), settings).check()
        val refused = assertFailsWith<FormatException> {
            SignatureRules(signature(weight, slots.reversed(), settings), settings).check()
        }
        val (wanted, came) = "slot/beta1_power float32 []" to "slot/second_moment/w float32 [2, 3]"
        assertEquals("signature.train_step.inputs.1 must be $wanted, got $came", refused.message)
    }

    private fun signature(weight: TensorSpec, slots: List<TensorSpec>, settings: StepSettings): Signature {
        val x = TensorSpec(Role.X, "x", listOf(TensorSpec.BATCH, 3), ElementType.FLOAT32)
        val y = TensorSpec(Role.Y, "y", listOf(TensorSpec.BATCH), ElementType.INT64)
        val hyper = settings.hyperNames.map { TensorSpec(Role.HYPER, it, emptyList(), ElementType.FLOAT32) }
        val loss = TensorSpec(Role.LOSS, "loss", emptyList(), ElementType.FLOAT32)
        val output = TensorSpec(Role.OUTPUT, "output", listOf(TensorSpec.BATCH, 2), ElementType.FLOAT32)
        return Signature(
            trainStep = MethodSignature(listOf(weight) + slots + x + y + hyper, listOf(loss, weight) + slots),
            predict = MethodSignature(listOf(weight, x), listOf(output)),
            evaluate = MethodSignature(listOf(weight, x, y), listOf(loss)),
        )
    }

    private fun told(lie: JSONObject): ByteArray {
        val manifest = JSONObject(sound)
        val path = lie.getJSONArray("path").let { array -> List(array.length(), array::get) }
        val place = path.dropLast(1).fold<Any, Any>(manifest) { place, step ->
            if (place is JSONArray) place.get(step as Int) else (place as JSONObject).get(step as String)
        }
        val last = path.last()
        val value = lie.opt("value")
        when {
            place is JSONObject && value == null -> place.remove(last as String)
            place is JSONObject -> place.put(last as String, value)
            place is JSONArray && value != null -> place.put(last as Int, value)
            // An array of this library lets nothing go: it is made anew.
            else -> without(manifest, path)
        }
        return manifest.toString().toByteArray()
    }

    private fun without(manifest: JSONObject, path: List<Any>) {
        val (method, part) = path.subList(1, 3).map { it as String }
        val signature = manifest.getJSONObject("signature").getJSONObject(method)
        val kept = signature.getJSONArray(part).objects().filterIndexed { index, _ -> index != path.last() }
        signature.put(part, JSONArray(kept))
    }
}
