package org.mobiledistill.inference.core

import com.sun.jna.Function
import com.sun.jna.Memory
import com.sun.jna.Native
import com.sun.jna.NativeLibrary
import com.sun.jna.NativeLong
import com.sun.jna.Pointer
import com.sun.jna.ptr.PointerByReference
import java.io.File
import java.nio.ByteBuffer

/**
 * The engine of tests: LiteRT's own kernels on this PC, through the C interface of its shared library.
 *
 * @param library path of libLiteRt.so, as the Python package `ai-edge-litert` brings it.
 */
class LiteRtEngine(library: String, model: File, manifest: ModelManifest) : Engine {
    private val native = NativeLibrary.getInstance(library)
    private val environment = made("LiteRtCreateEnvironment", 0, Pointer.NULL)
    private val file = made("LiteRtCreateModelFromFile", environment, model.path)
    private val options = made("LiteRtCreateOptions").also { call("LiteRtSetOptionsHardwareAccelerators", it, CPU) }
    private val compiled = made("LiteRtCreateCompiledModel", environment, file, options)
    private val dense = manifest.answer == Answer.CLASS_MAP
    private val taken = buffer("Input", UINT8, intArrayOf(1, manifest.imageSize, manifest.imageSize, 3))
    private val given = buffer("Output", if (dense) UINT8 else FLOAT32, manifest.outputShape)
    private val inputs = Memory(Native.POINTER_SIZE.toLong()).also { it.setPointer(0, taken) }
    private val outputs = Memory(Native.POINTER_SIZE.toLong()).also { it.setPointer(0, given) }

    override val inputBytes = manifest.imageSize * manifest.imageSize * 3
    override val outputBytes = manifest.outputSize * if (dense) 1 else Float.SIZE_BYTES

    override fun run(input: ByteBuffer, output: ByteBuffer) {
        val bytes = ByteArray(inputBytes)
        input.duplicate().get(bytes)
        locked(taken, WRITE) { it.write(0, bytes, 0, bytes.size) }
        call("LiteRtRunCompiledModel", compiled, NativeLong(0), NativeLong(1), inputs, NativeLong(1), outputs)
        locked(given, READ) { output.duplicate().put(it.getByteArray(0, outputBytes)) }
    }

    override fun close() {
        destroy("LiteRtDestroyTensorBuffer", taken)
        destroy("LiteRtDestroyTensorBuffer", given)
        destroy("LiteRtDestroyCompiledModel", compiled)
        destroy("LiteRtDestroyOptions", options)
        destroy("LiteRtDestroyModel", file)
        destroy("LiteRtDestroyEnvironment", environment)
    }

    private fun buffer(side: String, type: Int, shape: IntArray): Pointer {
        val needs = made("LiteRtGetCompiledModel${side}BufferRequirements", compiled, NativeLong(0), NativeLong(0))
        val tensor = Memory(RANKED_TENSOR_TYPE).also { it.clear() }
        tensor.setInt(0, type)
        tensor.setInt(4, shape.size)
        shape.forEachIndexed { place, side -> tensor.setInt(8L + 4 * place, side) }
        return made("LiteRtCreateManagedTensorBufferFromRequirements", environment, tensor, needs)
    }

    private fun locked(buffer: Pointer, mode: Int, use: (Pointer) -> Unit) {
        val at = PointerByReference()
        call("LiteRtLockTensorBuffer", buffer, at, mode)
        use(at.value)
        call("LiteRtUnlockTensorBuffer", buffer)
    }

    private fun made(function: String, vararg arguments: Any?): Pointer {
        val at = PointerByReference()
        call(function, *arguments, at)
        return at.value
    }

    private fun call(function: String, vararg arguments: Any?) {
        val status = native.getFunction(function).invokeInt(arrayOf(*arguments))
        if (status != 0) throw ModelRefusedException("$function answered $status")
    }

    private fun destroy(function: String, what: Pointer) {
        val found: Function = native.getFunction(function)
        found.invokeVoid(arrayOf<Any>(what))
    }

    private companion object {
        const val CPU = 1
        const val FLOAT32 = 1
        const val UINT8 = 3
        const val READ = 0
        const val WRITE = 1
        const val RANKED_TENSOR_TYPE = 72L // sizeof(LiteRtRankedTensorType)
    }
}
