package org.mobiledistill.inference

import android.content.Context
import java.io.FileInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import org.mobiledistill.inference.core.Files
import org.mobiledistill.inference.core.Model
import org.mobiledistill.inference.core.ModelManifest
import org.mobiledistill.inference.core.ModelMissingException

/** What `distill export android` put into an app's assets. */
class ModelAssets(context: Context, private val folder: String = FOLDER) : Files {
    private val assets = context.applicationContext.assets

    override fun read(name: String): ByteArray = try {
        assets.open("$folder/$name").use { it.readBytes() }
    } catch (error: IOException) {
        throw ModelMissingException("assets/$folder/$name is not in this app; run `distill export android --into MODULE`", error)
    }

    /** @throws org.mobiledistill.inference.core.ModelException it is missing, damaged, or of another version. */
    fun manifest(): ModelManifest = ModelManifest.parse(String(read(ModelManifest.NAME), Charsets.UTF_8))

    /**
     * The model as a part of the APK that is mapped into memory: nothing is copied, and the system may drop its pages.
     *
     * @throws ModelMissingException it is not there, or packed compressed.
     */
    fun map(name: String): ByteBuffer {
        val descriptor = try {
            assets.openFd("$folder/$name")
        } catch (error: IOException) {
            read(name) // says so if it is missing
            throw ModelMissingException(
                "assets/$folder/$name is packed compressed and cannot be mapped; in build.gradle.kts:" +
                    " android { androidResources { noCompress += \"tflite\" } }",
                error,
            )
        }
        descriptor.use { file ->
            FileInputStream(file.fileDescriptor).channel.use { channel ->
                val mapped = channel.map(FileChannel.MapMode.READ_ONLY, file.startOffset, file.declaredLength)
                mapped.order(ByteOrder.nativeOrder())
                return mapped
            }
        }
    }

    /**
     * Open the model after its hash was compared.
     *
     * @param threads of the runtime.
     * @throws org.mobiledistill.inference.core.ModelException with what is wrong.
     */
    fun open(threads: Int): Model {
        val manifest = manifest()
        val model = map(manifest.file)
        manifest.check(model)
        return Model(manifest, TfLiteEngine(model, threads))
    }

    companion object {
        /** Where `distill export android` writes. */
        const val FOLDER = "distill"

        /** Two fast cores is what weak phones have; more threads than that wait for slow ones. */
        const val THREADS = 2
    }
}
