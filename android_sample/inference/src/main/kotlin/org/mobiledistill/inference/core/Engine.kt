package org.mobiledistill.inference.core

import java.io.Closeable
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Runs one model of one input and one output. Not for several threads at once: its owner sees to that.
 *
 * On Android it is TensorFlow Lite's interpreter, in tests on a PC the same kernels behind their C interface.
 */
interface Engine : Closeable {
    /** Bytes of the input tensor. */
    val inputBytes: Int

    /** Bytes of the output tensor. */
    val outputBytes: Int

    /**
     * @param input direct, [inputBytes] long, in native order.
     * @param output direct, [outputBytes] long, in native order; is written from its start on.
     * @throws ModelRefusedException the runtime failed.
     */
    fun run(input: ByteBuffer, output: ByteBuffer)
}

/** `rewind` as the base class has it: the one that returns the subclass exists from Android 14 on alone. */
internal fun Buffer.toStart() {
    rewind()
}

/** `position`, likewise. */
internal fun Buffer.at(place: Int) {
    position(place)
}

/** Memory that a runtime reads and writes in place. */
fun directBuffer(bytes: Int): ByteBuffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

/**
 * A model with its buffers: pictures in, its raw answers out. The only owner of the engine.
 *
 * Safe to use from any threads; they take turns. Allocates nothing from the second picture of a size on.
 *
 * @throws ModelRefusedException the engine's tensors have other sizes than the manifest says; the engine is closed then.
 */
class Model(val manifest: ModelManifest, private val engine: Engine) : AutoCloseable {
    private val input = directBuffer(manifest.imageSize * manifest.imageSize * 3)
    private val output = directBuffer(manifest.outputSize * if (manifest.answer == Answer.CLASS_MAP) 1 else Float.SIZE_BYTES)
    private val floats = output.asFloatBuffer()
    private val preprocessor = Preprocessor(manifest.crop, manifest.imageSize)
    private var closed = false

    init {
        if (engine.inputBytes != input.capacity() || engine.outputBytes != output.capacity()) {
            val found = "${engine.inputBytes} bytes and gives ${engine.outputBytes}"
            engine.close()
            throw ModelRefusedException(
                "${manifest.file} takes $found; ${ModelManifest.NAME} says ${input.capacity()} and ${output.capacity()}",
            )
        }
    }

    /** Bytes of the model's input for the last picture. */
    @Synchronized
    fun lastInput(): ByteArray = ByteArray(input.capacity()).also { copyOf(input).get(it) }

    /**
     * What the model answers to a picture: probabilities or logits.
     *
     * @param image upright and opaque.
     * @param into [ModelManifest.outputSize] numbers.
     */
    @Synchronized
    fun answer(image: Pixels, into: FloatArray) {
        open()
        preprocessor.fill(image, input)
        invoke()
        floats.toStart()
        floats.get(into)
    }

    /** The same where the model answers with a class map. */
    @Synchronized
    fun answer(image: Pixels, into: ByteArray) {
        open()
        preprocessor.fill(image, input)
        invoke()
        output.get(into)
        output.toStart()
    }

    /**
     * What the model answers to bytes that are its input already, as raw bytes.
     *
     * @param tensor S * S * 3 bytes.
     */
    @Synchronized
    fun answer(tensor: ByteArray): ByteArray {
        open()
        require(tensor.size == input.capacity()) { "${tensor.size} bytes, the model takes ${input.capacity()}" }
        input.toStart()
        input.put(tensor)
        input.toStart()
        invoke()
        return ByteArray(output.capacity()).also { copyOf(output).get(it) }
    }

    /** Gives back what the engine holds; waits for a running inference. Closing twice does nothing. */
    @Synchronized
    override fun close() {
        if (!closed) {
            closed = true
            engine.close()
        }
    }

    private fun open() {
        if (closed) throw ModelClosedException()
    }

    private fun invoke() {
        output.toStart()
        engine.run(input, output)
        input.toStart()
        output.toStart()
    }

    private fun copyOf(buffer: ByteBuffer): ByteBuffer = buffer.duplicate().also { it.toStart() }
}
