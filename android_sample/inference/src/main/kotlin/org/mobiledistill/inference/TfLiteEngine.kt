package org.mobiledistill.inference

import java.nio.ByteBuffer
import org.mobiledistill.inference.core.Engine
import org.mobiledistill.inference.core.ModelRefusedException
import org.tensorflow.lite.Delegate
import org.tensorflow.lite.Interpreter

/**
 * TensorFlow Lite's interpreter, on the CPU unless a delegate is given.
 *
 * @param model direct and in native order, best mapped from a file; it stays in use until [close].
 * @param threads of the runtime.
 * @param xnnpack whether XNNPACK runs what it can; else the built-in kernels do.
 * @param delegate takes part of the graph; the caller closes it, after this.
 * @throws ModelRefusedException the runtime does not take the file.
 */
class TfLiteEngine(model: ByteBuffer, threads: Int, xnnpack: Boolean = true, delegate: Delegate? = null) : Engine {
    private val interpreter: Interpreter

    override val inputBytes: Int
    override val outputBytes: Int

    init {
        val options = Interpreter.Options().setNumThreads(threads).setUseXNNPACK(xnnpack)
        if (delegate != null) options.addDelegate(delegate)
        interpreter = refused("does not take the model") { Interpreter(model, options) }
        try {
            val counts = "${interpreter.inputTensorCount} inputs and ${interpreter.outputTensorCount} outputs"
            if (interpreter.inputTensorCount != 1 || interpreter.outputTensorCount != 1) {
                throw ModelRefusedException("the model has $counts, expected one of each")
            }
            refused("cannot make room for the model") { interpreter.allocateTensors() }
            inputBytes = interpreter.getInputTensor(0).numBytes()
            outputBytes = interpreter.getOutputTensor(0).numBytes()
        } catch (error: RuntimeException) {
            interpreter.close()
            throw error
        }
    }

    /** Element type of the output, such as FLOAT32. */
    val outputType: String get() = interpreter.getOutputTensor(0).dataType().toString()

    /** Shape of the output. */
    val outputShape: IntArray get() = interpreter.getOutputTensor(0).shape()

    override fun run(input: ByteBuffer, output: ByteBuffer) {
        refused("failed") { interpreter.run(input, output) }
    }

    override fun close() = interpreter.close()

    private inline fun <T> refused(what: String, work: () -> T): T = try {
        work()
    } catch (error: IllegalArgumentException) {
        throw ModelRefusedException("TensorFlow Lite $what: ${error.message}", error)
    } catch (error: IllegalStateException) {
        throw ModelRefusedException("TensorFlow Lite $what: ${error.message}", error)
    }
}
