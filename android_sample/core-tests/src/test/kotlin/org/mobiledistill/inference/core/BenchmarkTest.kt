package org.mobiledistill.inference.core

import java.io.FileNotFoundException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

/** A plan becomes a result, whatever happens. */
class BenchmarkTest {
    private val model = "model".toByteArray()
    private val inputs = TestFiles.noise(3 * 48, 1)
    private val host = FakeHost()

    private inner class FakeHost : BenchmarkHost {
        val written = LinkedHashMap<String, ByteArray>()
        var failure: Throwable? = null
        private var clock = 0L

        override val app = "0.1.0"
        override val runtime = "fake 1"
        override val abi = "armeabi-v7a"

        override fun map(path: String): ByteBuffer = when (path) {
            "/model" -> ByteBuffer.wrap(model)
            "/input" -> ByteBuffer.wrap(inputs)
            else -> throw FileNotFoundException(path)
        }

        override fun open(model: ByteBuffer, threads: Int, kernels: Kernels): MeasuredEngine {
            failure?.let { throw it }
            if (kernels == Kernels.NNAPI) throw BenchmarkException("delegate", "no NNAPI")
            val fake = FakeEngine(Manifests.classifier())
            return object : MeasuredEngine, Engine by fake {
                override val outputType = "float32"
                override val outputShape = intArrayOf(1, 3)
            }
        }

        override fun memoryKb(name: String) = if (name == "VmRSS") 1000L else 3000L

        override fun write(name: String, content: ByteArray) {
            written[name] = content
        }

        override fun nanoTime(): Long {
            clock += 1_500_000
            return clock
        }
    }

    private fun plan(change: (MutableMap<String, Any?>) -> Unit = {}): String {
        val plan = linkedMapOf<String, Any?>(
            "format" to 1,
            "id" to "0123456789abcdef",
            "measure" to "latency",
            "model" to mapOf("path" to "/model", "sha256" to TestFiles.digest(model), "bytes" to model.size),
            "input" to input("/input", TestFiles.digest(inputs)),
            "threads" to 2,
            "delegate" to "xnnpack",
            "warmup" to 2,
            "runs" to 5,
        )
        return Json.write(plan.also(change))
    }

    private fun input(path: String, sha256: String) =
        mapOf("path" to path, "sha256" to sha256, "count" to 3, "dtype" to "uint8", "shape" to listOf(1, 4, 4, 3))

    private fun run(text: String, succeeds: Boolean): Map<*, *> {
        assertEquals(succeeds, Benchmark(host).run(text))
        val found = Json.parse(String(host.written.getValue("0123456789abcdef.json"))) as Map<*, *>
        assertEquals(
            listOf(
                "format", "id", "measure", "app", "runtime", "abi", "model_sha256", "threads", "delegate", "load_ms",
                "samples_ms", "memory", "outputs", "error",
            ),
            found.keys.toList(),
        )
        return found
    }

    @Test
    fun latencyGivesOneSampleARun() {
        val found = run(plan(), succeeds = true)
        assertEquals(List(5) { 1.5 }, found["samples_ms"])
        assertEquals(1.5, found["load_ms"])
        assertEquals(TestFiles.digest(model), found["model_sha256"])
        assertNull(found["memory"])
        assertNull(found["error"])
    }

    @Test
    fun memoryIsThatBeforeAndThePeak() {
        val found = run(plan { it["measure"] = "memory" }, succeeds = true)
        assertEquals(mapOf("before_kb" to 1000L, "peak_kb" to 3000L), found["memory"])
        assertEquals(emptyList<Any>(), found["samples_ms"])
    }

    @Test
    fun parityKeepsEveryAnswer() {
        val found = run(plan { it["measure"] = "parity" }, succeeds = true)
        val outputs = host.written.getValue("0123456789abcdef.outputs")
        val floats = ByteBuffer.wrap(outputs).order(ByteOrder.nativeOrder()).asFloatBuffer()
        // The fake answers with the first three bytes of each input.
        val expected = List(9) { (inputs[it / 3 * 48 + it % 3].toInt() and 255) / 255f }
        assertEquals(expected, List(9) { floats.get(it) })
        assertEquals(
            mapOf(
                "file" to "0123456789abcdef.outputs", "sha256" to TestFiles.digest(outputs), "bytes" to 36L, "count" to 3L,
                "dtype" to "float32", "shape" to listOf(1L, 3L),
            ),
            found["outputs"],
        )
    }

    @Test
    fun whatGoesWrongIsNamed() {
        fun expect(kind: String, message: String, text: String) {
            val error = run(text, succeeds = false)["error"] as Map<*, *>
            assertEquals(kind to message, error["kind"] to error["message"])
        }
        expect("plan", "plan: format: found 2, expected 1", plan { it["format"] = 2 })
        expect("plan", "plan: surprise: this key is unknown", plan { it["surprise"] = 1 })
        expect("plan", "plan: threads: found 9, expected 1 to 8", plan { it["threads"] = 9 })
        expect("plan", "plan: runs: found 0, expected at least 1", plan { it["runs"] = 0 })
        expect("plan", "plan: delegate: found 'gpu', expected 'xnnpack' or 'none' or 'nnapi'", plan { it["delegate"] = "gpu" })
        expect("delegate", "no NNAPI", plan { it["delegate"] = "nnapi" })
        expect(
            "model", "/gone cannot be read (/gone)",
            plan { it["model"] = mapOf("path" to "/gone", "sha256" to "0", "bytes" to 1) },
        )
        expect(
            "hash", "the model has 5 bytes, the plan says 6",
            plan { it["model"] = mapOf("path" to "/model", "sha256" to "0", "bytes" to 6) },
        )
        expect("hash", "the input has SHA-256 ${TestFiles.digest(inputs)}, the plan says 0", plan { it["input"] = input("/input", "0") })
        host.failure = ModelRefusedException("no:\n  such operator")
        expect("model", "no: such operator", plan())
        host.failure = OutOfMemoryError("5 MB")
        expect("memory", "the phone ran out of memory: 5 MB", plan())
        host.failure = IllegalStateException("odd")
        expect("other", "IllegalStateException: odd", plan())
    }

    @Test
    fun aPlanWithoutANameWritesNothing() {
        assertFalse(Benchmark(host).run("no plan"))
        assertFalse(Benchmark(host).run(plan { it["id"] = "../../etc/passwd" }))
        assertTrue(host.written.isEmpty())
    }
}
