package org.mobiledistill.sample

import android.app.Activity
import android.app.Instrumentation
import android.content.Context
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.os.Process
import android.view.WindowManager
import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import org.mobiledistill.inference.TfLiteEngine
import org.mobiledistill.inference.core.Benchmark
import org.mobiledistill.inference.core.BenchmarkException
import org.mobiledistill.inference.core.BenchmarkHost
import org.mobiledistill.inference.core.BenchmarkPlan
import org.mobiledistill.inference.core.Engine
import org.mobiledistill.inference.core.Kernels
import org.mobiledistill.inference.core.MeasuredEngine
import org.tensorflow.lite.Delegate
import org.tensorflow.lite.TensorFlowLite
import org.tensorflow.lite.nnapi.NnApiDelegate

/**
 * Does one job of `distill bench --device adb`:
 *
 * `adb shell am instrument -w -e plan FILE org.mobiledistill.sample/.BenchmarkInstrumentation`
 */
class BenchmarkInstrumentation : Instrumentation() {
    private var plan: String? = null

    override fun onCreate(arguments: Bundle?) {
        super.onCreate(arguments)
        plan = arguments?.getString("plan")
        start()
    }

    override fun onStart() {
        super.onStart()
        val answer = Bundle()
        val text = try {
            File(plan ?: throw IOException("no plan was named: -e plan FILE")).readText()
        } catch (error: IOException) {
            answer.putString("shortMsg", "the plan cannot be read: ${error.message}")
            return finish(Activity.RESULT_CANCELED, answer)
        }
        BenchmarkPlan.idOf(text)?.let { answer.putString("id", it) }
        val shown = startActivitySync(Intent(targetContext, BenchmarkActivity::class.java).addFlags(Intent.FLAG_ACTIVITY_NEW_TASK))
        waitForIdleSync()
        var measured = false
        val worker = Thread({ measured = Benchmark(Phone(targetContext)).run(text) }, "benchmark")
        worker.start()
        worker.join()
        runOnMainSync { shown.finish() }
        finish(if (measured) Activity.RESULT_OK else Activity.RESULT_CANCELED, answer)
    }
}

/** In front while a benchmark runs. */
class BenchmarkActivity : Activity() {
    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        @Suppress("DEPRECATION") // setTurnScreenOn came with Android 8.1
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON or WindowManager.LayoutParams.FLAG_TURN_SCREEN_ON)
        setContentView(R.layout.benchmark)
    }
}

/** This phone, as a benchmark asks for it. */
private class Phone(private val context: Context) : BenchmarkHost {
    override val app: String get() = context.packageManager.getPackageInfo(context.packageName, 0).versionName ?: "unknown"
    override val runtime: String get() = "TensorFlow Lite ${TensorFlowLite.runtimeVersion()}"

    override val abi: String
        get() {
            val wide = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.M) Process.is64Bit() else System.getProperty("os.arch").orEmpty().contains("64")
            return (if (wide) Build.SUPPORTED_64_BIT_ABIS else Build.SUPPORTED_32_BIT_ABIS).firstOrNull() ?: "unknown"
        }

    override fun map(path: String): ByteBuffer = FileInputStream(path).channel.use { channel ->
        channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size()).also { it.order(ByteOrder.nativeOrder()) }
    }

    override fun open(model: ByteBuffer, threads: Int, kernels: Kernels): MeasuredEngine {
        val delegate = if (kernels == Kernels.NNAPI) nnapi() else null
        try {
            return Measured(TfLiteEngine(model, threads, kernels == Kernels.XNNPACK, delegate), delegate)
        } catch (error: RuntimeException) {
            delegate?.close()
            throw error
        }
    }

    private fun nnapi(): Delegate {
        if (Build.VERSION.SDK_INT < NNAPI_SINCE) {
            throw BenchmarkException("delegate", "NNAPI came with Android 8.1, this is Android ${Build.VERSION.RELEASE}")
        }
        return try {
            NnApiDelegate(NnApiDelegate.Options().setUseNnapiCpu(false))
        } catch (error: RuntimeException) {
            throw BenchmarkException("delegate", "NNAPI is not to be had: ${error.message}")
        } catch (error: LinkageError) {
            throw BenchmarkException("delegate", "NNAPI is not to be had: ${error.message}")
        }
    }

    override fun memoryKb(name: String): Long {
        val line = File("/proc/self/status").readLines().firstOrNull { it.startsWith("$name:") }
        return line?.filter { it.isDigit() }?.toLongOrNull() ?: throw IOException("/proc/self/status has no $name")
    }

    override fun write(name: String, content: ByteArray) {
        keep(context.filesDir, name, content)
        // Where `run-as` is broken, adb reads it there; not all phones have such a place.
        try {
            context.getExternalFilesDir(null)?.let { keep(it, name, content) }
        } catch (_: IOException) {
            Unit
        }
    }

    private fun keep(folder: File, name: String, content: ByteArray) {
        val into = File(folder, "benchmark")
        if (!into.isDirectory && !into.mkdirs()) throw IOException("$into cannot be made")
        val temporary = File(into, ".$name.tmp")
        temporary.writeBytes(content)
        if (!temporary.renameTo(File(into, name))) throw IOException("${File(into, name)} cannot be written")
    }

    override fun nanoTime(): Long = System.nanoTime()

    private companion object {
        const val NNAPI_SINCE = 27 // Android 8.1
    }

    private class Measured(private val engine: TfLiteEngine, private val delegate: Delegate?) : MeasuredEngine, Engine by engine {
        override val outputType: String get() = engine.outputType.lowercase()
        override val outputShape: IntArray get() = engine.outputShape

        override fun close() {
            engine.close()
            delegate?.close()
        }
    }
}
