package org.mobiledistill.inference.core

import java.nio.ByteBuffer

/** Manifests as `distill export android` writes them, and an engine that says what it is told to. */
object Manifests {
    fun classifier(change: (MutableMap<String, Any?>) -> Unit = {}): ModelManifest =
        ModelManifest.parse(Json.write(classifierDocument().also(change)))

    fun segmenter(shape: List<Int>, output: String): ModelManifest {
        val document = classifierDocument()
        document["task"] = "segmentation"
        document["output"] = output
        document["labels"] = List(shape.getOrElse(3) { 3 }) { "class $it" }
        document["outputs"] = listOf(tensor(if (output == "class_map") "uint8" else "float32", shape))
        document.remove("display")
        return ModelManifest.parse(Json.write(document))
    }

    fun classifierDocument(): MutableMap<String, Any?> = linkedMapOf(
        "manifest_version" to 1,
        "name" to "tflite-int8",
        "task" to "classification",
        "metric" to mapOf("key" to "accuracy", "title" to "accuracy"),
        "file" to "student.int8.tflite",
        "format" to "tflite",
        "precision" to "int8",
        "sha256" to "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", // of "abc"
        "bytes" to 3,
        "image_size" to 4,
        "resize" to "squash",
        "output" to "probabilities",
        "labels" to listOf("cat", "dog", "owl"),
        "inputs" to listOf(tensor("uint8", listOf(1, 4, 4, 3))),
        "outputs" to listOf(tensor("float32", listOf(1, 3))),
        "scores" to mapOf("test" to mapOf("accuracy" to mapOf("value" to 0.9149))),
        "preprocessing" to mapOf("filter" to "triangle", "coefficient_bits" to 22, "crop" to "none", "mean" to listOf(127.5)),
        "teacher" to mapOf("name" to "timm/convnext", "license" to "apache-2.0"),
        "display" to mapOf("colors" to listOf(listOf(0, 0, 0), listOf(225, 30, 60), listOf(1, 2, 3)), "clear" to null),
        "a_key_of_tomorrow" to listOf(1, mapOf("x" to null)),
    )

    private fun tensor(dtype: String, shape: List<Int>) = mapOf("name" to "x", "dtype" to dtype, "shape" to shape)
}

/** Answers with the first bytes of its input, and tells whether two threads were inside at once. */
class FakeEngine(manifest: ModelManifest) : Engine {
    override val inputBytes = manifest.imageSize * manifest.imageSize * 3
    override val outputBytes = manifest.outputSize * 4
    private val first = ByteArray(manifest.outputSize)

    @Volatile
    private var inside = false

    @Volatile
    var met = false
        private set

    @Volatile
    var closed = 0
        private set

    override fun run(input: ByteBuffer, output: ByteBuffer) {
        if (inside || closed > 0) met = true
        inside = true
        input.get(first)
        for (i in first.indices) output.putFloat(4 * i, (first[i].toInt() and 255) / 255f)
        Thread.yield()
        inside = false
    }

    override fun close() {
        if (inside) met = true
        closed++
    }
}
