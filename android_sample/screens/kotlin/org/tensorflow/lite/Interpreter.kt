package org.tensorflow.lite

import java.io.File
import java.nio.ByteBuffer
import org.mobiledistill.inference.core.LiteRtEngine
import org.mobiledistill.inference.core.ModelManifest

/** Stands in for the phone's interpreter, whose native half is Android's: LiteRT on this PC behind the same methods. */
class Interpreter(model: ByteBuffer, @Suppress("UNUSED_PARAMETER") options: Options) : AutoCloseable {
    @Suppress("UNUSED_PARAMETER")
    class Options {
        fun setNumThreads(count: Int) = this

        fun setUseXNNPACK(use: Boolean) = this

        fun addDelegate(delegate: Delegate) = this
    }

    class Tensor(private val bytes: Int, private val shape: IntArray, private val type: String) {
        fun numBytes() = bytes

        fun shape() = shape

        fun dataType() = type
    }

    private val manifest = ModelManifest.parse(File(System.getProperty("distill.exports")!!, ModelManifest.NAME).readText())
    private val engine: LiteRtEngine
    val inputTensorCount = 1
    val outputTensorCount = 1

    init {
        val file = File.createTempFile("model", ".tflite")
        file.writeBytes(ByteArray(model.remaining()).also { model.duplicate().get(it) })
        engine = LiteRtEngine(System.getProperty("distill.litert")!!, file, manifest)
        file.delete()
    }

    fun allocateTensors() = Unit

    fun getInputTensor(index: Int) = Tensor(engine.inputBytes, intArrayOf(1, manifest.imageSize, manifest.imageSize, 3), "UINT8").also { check(index == 0) }

    fun getOutputTensor(index: Int) = Tensor(engine.outputBytes, manifest.outputShape, "FLOAT32").also { check(index == 0) }

    fun run(input: Any, output: Any) = engine.run(input as ByteBuffer, output as ByteBuffer)

    override fun close() = engine.close()
}

/** As the phone's. */
interface Delegate : AutoCloseable

/** As the phone's. */
object TensorFlowLite {
    @JvmStatic
    fun runtimeVersion() = "on this PC"
}
