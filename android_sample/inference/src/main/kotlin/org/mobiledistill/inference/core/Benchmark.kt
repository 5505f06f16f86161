package org.mobiledistill.inference.core

import java.nio.ByteBuffer
import java.security.MessageDigest

/** What `distill bench --device adb` measures, one thing in one process. */
enum class Measure { LATENCY, MEMORY, PARITY }

/** What runs the model. */
enum class Kernels { XNNPACK, NONE, NNAPI }

/** An engine that says what it gives. */
interface MeasuredEngine : Engine {
    /** `float32`, `uint8`, `int8` or `int32`. */
    val outputType: String
    val outputShape: IntArray
}

/** What the machine does for a benchmark; on a PC, tests do. */
interface BenchmarkHost {
    /** Version of the app. */
    val app: String

    /** Name and version of the runtime. */
    val runtime: String

    /** Of this process. */
    val abi: String

    /** A file in memory. @throws java.io.IOException it cannot be read. */
    fun map(path: String): ByteBuffer

    /**
     * @throws ModelRefusedException the runtime does not take the model.
     * @throws BenchmarkException of the kind `delegate`: these kernels are not to be had here.
     */
    fun open(model: ByteBuffer, threads: Int, kernels: Kernels): MeasuredEngine

    /** Kilobytes behind a name in /proc/self/status, `VmRSS` or `VmHWM`. */
    fun memoryKb(name: String): Long

    /** Keep a file so that it is there whole or not at all. */
    fun write(name: String, content: ByteArray)

    /** Nanoseconds of a clock that only goes forward. */
    fun nanoTime(): Long
}

/** A benchmark that could not be done: `plan`, `model`, `hash`, `delegate`, `memory` or `other`. */
class BenchmarkException(val kind: String, message: String) : Exception(message)

/** A plan as the driver writes it, format 1. */
class BenchmarkPlan private constructor(
    val id: String,
    val measure: Measure,
    val model: Part,
    val input: Part,
    val count: Int,
    val threads: Int,
    val kernels: Kernels,
    val warmup: Int,
    val runs: Int,
) {
    /** A file that is read, and what it must be. */
    class Part(val path: String, val sha256: String, val bytes: Long)

    companion object {
        /** Version of the layout of plans and results. */
        const val FORMAT = 1

        private val KEYS = setOf("format", "id", "measure", "model", "input", "threads", "delegate", "warmup", "runs")
        private val ID = Regex("[0-9a-f]{16}")
        private val MEASURES = mapOf("latency" to Measure.LATENCY, "memory" to Measure.MEMORY, "parity" to Measure.PARITY)
        private val DELEGATES = mapOf("xnnpack" to Kernels.XNNPACK, "none" to Kernels.NONE, "nnapi" to Kernels.NNAPI)
        private const val MOST_THREADS = 8

        /** The name of the file that answers a plan, as far as that can be told of one that cannot be read. */
        fun idOf(text: String): String? = try {
            JsonObject.parse("plan", text).string("id").takeIf { ID.matches(it) }
        } catch (_: ManifestException) {
            null
        }

        /** @throws BenchmarkException of the kind `plan`. */
        fun parse(text: String): BenchmarkPlan = try {
            val root = JsonObject.parse("plan", text)
            if (root.int("format") != FORMAT) root.wrong("format", "$FORMAT", root.int("format"))
            exactly(root, "", KEYS)
            val id = root.string("id")
            if (!ID.matches(id)) root.wrong("id", "16 hex digits", id)
            val model = root.child("model")
            exactly(model, "model.", setOf("path", "sha256", "bytes"))
            val input = root.child("input")
            exactly(input, "input.", setOf("path", "sha256", "count", "dtype", "shape"))
            if (input.string("dtype") != "uint8") input.wrong("dtype", "'uint8'", input.string("dtype"))
            val shape = input.ints("shape")
            if (shape.size != 4 || shape.any { it < 1 }) input.wrong("shape", "[1, S, S, 3]", shape.asList())
            val count = atLeast(input, "count", 1)
            val size = shape.fold(count.toLong()) { product, side -> product * side }
            val threads = atLeast(root, "threads", 1)
            if (threads > MOST_THREADS) root.wrong("threads", "1 to $MOST_THREADS", threads)
            BenchmarkPlan(
                id,
                root.choice("measure", MEASURES),
                Part(model.string("path"), model.string("sha256"), model.number("bytes").toLong()),
                Part(input.string("path"), input.string("sha256"), size),
                count,
                threads,
                root.choice("delegate", DELEGATES),
                atLeast(root, "warmup", 0),
                atLeast(root, "runs", 1),
            )
        } catch (error: ManifestException) {
            throw BenchmarkException("plan", error.message ?: "the plan cannot be read")
        }

        private fun atLeast(values: JsonObject, key: String, least: Int): Int {
            val found = values.int(key)
            if (found < least) values.wrong(key, "at least $least", found)
            return found
        }

        private fun exactly(values: JsonObject, path: String, known: Set<String>) {
            val others = values.entries().keys.filter { it !in known }
            if (others.isNotEmpty()) throw ManifestException("plan: $path${others.first()}: this key is unknown")
        }
    }
}

/** Does what a plan says and keeps the result, also of a failure. */
class Benchmark(private val host: BenchmarkHost) {
    /**
     * @param text the plan.
     * @return whether it was measured; the result is `<id>.json` in either case, unless not even the id can be read.
     */
    fun run(text: String): Boolean {
        val id = BenchmarkPlan.idOf(text) ?: return false
        val result = linkedMapOf<String, Any?>(
            "format" to BenchmarkPlan.FORMAT, "id" to id, "measure" to null, "app" to host.app, "runtime" to host.runtime,
            "abi" to host.abi, "model_sha256" to null, "threads" to null, "delegate" to null, "load_ms" to null,
            "samples_ms" to emptyList<Double>(), "memory" to null, "outputs" to null, "error" to null,
        )
        val failure = try {
            measure(BenchmarkPlan.parse(text), result)
            null
        } catch (error: BenchmarkException) {
            error.kind to error.message
        } catch (error: ModelRefusedException) {
            "model" to error.message
        } catch (error: OutOfMemoryError) {
            "memory" to "the phone ran out of memory: ${error.message}"
        } catch (error: Exception) { // whatever it is, the driver must hear of it
            "other" to "${error.javaClass.simpleName}: ${error.message}"
        }
        if (failure != null) {
            result["error"] = mapOf("kind" to failure.first, "message" to oneLine(failure.second))
            result["samples_ms"] = emptyList<Double>()
            result["memory"] = null
            result["outputs"] = null
        }
        host.write("$id.json", Json.write(result).toByteArray())
        return failure == null
    }

    private fun measure(plan: BenchmarkPlan, result: MutableMap<String, Any?>) {
        result["measure"] = plan.measure.name.lowercase()
        result["threads"] = plan.threads
        result["delegate"] = plan.kernels.name.lowercase()
        // Hashed before the memory is looked at, so that pages of the file count in none of the figures twice.
        result["model_sha256"] = checked("model", plan.model)
        checked("input", plan.input)
        val before = host.memoryKb("VmRSS")
        val started = host.nanoTime()
        val model = host.map(plan.model.path)
        host.open(model, plan.threads, plan.kernels).use { engine ->
            result["load_ms"] = milliseconds(host.nanoTime() - started)
            val size = (plan.input.bytes / plan.count).toInt()
            if (engine.inputBytes != size) {
                throw BenchmarkException("plan", "the model takes ${engine.inputBytes} bytes, the plan's inputs have $size")
            }
            val tensors = tensors(host.map(plan.input.path), plan.count, size)
            val output = directBuffer(engine.outputBytes)
            when (plan.measure) {
                Measure.PARITY -> result["outputs"] = answers(plan, engine, tensors, output)
                else -> {
                    val samples = timed(plan, engine, tensors, output)
                    if (plan.measure == Measure.LATENCY) {
                        result["samples_ms"] = samples.map { milliseconds(it) }
                    } else {
                        result["memory"] = linkedMapOf("before_kb" to before, "peak_kb" to host.memoryKb("VmHWM"))
                    }
                }
            }
        }
    }

    /** Nanoseconds of each run; inputs are taken in turn and are in place before the clock starts. */
    private fun timed(plan: BenchmarkPlan, engine: Engine, tensors: List<ByteBuffer>, output: ByteBuffer): LongArray {
        val samples = LongArray(plan.runs)
        for (run in -plan.warmup until plan.runs) {
            val input = tensors[(run + plan.warmup) % tensors.size]
            input.toStart()
            output.toStart()
            val started = host.nanoTime()
            engine.run(input, output)
            val ended = host.nanoTime()
            if (run >= 0) samples[run] = maxOf(1, ended - started)
        }
        return samples
    }

    private fun answers(plan: BenchmarkPlan, engine: MeasuredEngine, tensors: List<ByteBuffer>, output: ByteBuffer): Any {
        val all = ByteArray(plan.count * engine.outputBytes)
        for (place in 0 until plan.count) {
            tensors[place].toStart()
            output.toStart()
            engine.run(tensors[place], output)
            output.toStart()
            output.get(all, place * engine.outputBytes, engine.outputBytes)
        }
        val name = "${plan.id}.outputs"
        host.write(name, all)
        return linkedMapOf(
            "file" to name, "sha256" to hex(MessageDigest.getInstance("SHA-256").digest(all)), "bytes" to all.size,
            "count" to plan.count, "dtype" to engine.outputType, "shape" to engine.outputShape.asList(),
        )
    }

    private fun tensors(bytes: ByteBuffer, count: Int, size: Int): List<ByteBuffer> = List(count) { place ->
        val tensor = directBuffer(size)
        val part = ByteArray(size)
        val source = bytes.duplicate()
        source.at(place * size)
        source.get(part)
        tensor.put(part)
        tensor.toStart()
        tensor
    }

    private fun checked(what: String, part: BenchmarkPlan.Part): String {
        val bytes = try {
            host.map(part.path)
        } catch (error: java.io.IOException) {
            throw BenchmarkException("model", "${part.path} cannot be read (${error.message})")
        }
        if (bytes.remaining().toLong() != part.bytes) {
            throw BenchmarkException("hash", "the $what has ${bytes.remaining()} bytes, the plan says ${part.bytes}")
        }
        val digest = MessageDigest.getInstance("SHA-256")
        digest.update(bytes.duplicate())
        val found = hex(digest.digest())
        if (found != part.sha256) throw BenchmarkException("hash", "the $what has SHA-256 $found, the plan says ${part.sha256}")
        return found
    }

    private fun milliseconds(nanoseconds: Long): Double = nanoseconds / 1e6

    private fun oneLine(text: String?): String = text.orEmpty().lineSequence().joinToString(" ") { it.trim() }.trim()
}
