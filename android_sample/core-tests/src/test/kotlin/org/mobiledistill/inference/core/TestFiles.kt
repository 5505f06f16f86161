package org.mobiledistill.inference.core

import java.awt.image.BufferedImage
import java.io.ByteArrayInputStream
import java.io.File
import java.security.MessageDigest
import javax.imageio.ImageIO

/** What tests read: golden files shared with pytest, and exported models where pytest names some. */
object TestFiles {
    /** Folders that `distill export android` wrote; none outside pytest. */
    val exports: List<File> = System.getProperty("distill.exports").orEmpty().split(File.pathSeparator)
        .filter { it.isNotEmpty() }.map { File(it) }

    /** The runtime behind its C interface, as it comes with the Python package. */
    val liteRt: String? = System.getProperty("distill.litert")

    fun bytes(name: String): ByteArray = checkNotNull(javaClass.getResourceAsStream("/golden/$name")) { name }.use { it.readBytes() }

    /** The rows of a golden file; single values stand in a row of one. */
    fun rows(name: String): List<*> = Json.parse(String(bytes(name), Charsets.UTF_8)) as List<*>

    fun objects(name: String): List<JsonObject> = rows(name).map { JsonObject(name, it as Map<*, *>) }

    /** `golden.noise` of the Python tests: bytes that look random, the same on both sides. */
    fun noise(count: Int, seed: Int): ByteArray = ByteArray(count) {
        var h = it * 0x9E3779B1.toInt() + seed
        h = h xor (h ushr 15)
        h *= 0x85EBCA77.toInt()
        h = h xor (h ushr 13)
        (h ushr 24).toByte()
    }

    fun opaque(rgb: ByteArray): IntArray = IntArray(rgb.size / 3) {
        (255 shl 24) or ((rgb[3 * it].toInt() and 255) shl 16) or ((rgb[3 * it + 1].toInt() and 255) shl 8) or
            (rgb[3 * it + 2].toInt() and 255)
    }

    fun rgb(argb: IntArray): ByteArray = ByteArray(argb.size * 3) { (argb[it / 3] shr (16 - 8 * (it % 3))).toByte() }

    fun digest(bytes: ByteArray): String = hex(MessageDigest.getInstance("SHA-256").digest(bytes))

    /** Grey pictures give their values as red, green and blue, without a colour space in between. */
    fun decode(png: ByteArray): Pixels {
        val image = ImageIO.read(ByteArrayInputStream(png))
        if (image.raster.numBands == 1) {
            val grey = image.raster.getSamples(0, 0, image.width, image.height, 0, null as IntArray?)
            return Pixels(image.width, image.height, IntArray(grey.size) { (255 shl 24) or grey[it] * 0x010101 })
        }
        return Pixels(image.width, image.height, image.getRGB(0, 0, image.width, image.height, null, 0, image.width))
    }

    fun encode(pixels: Pixels, into: File) {
        val image = BufferedImage(pixels.width, pixels.height, BufferedImage.TYPE_INT_RGB)
        image.setRGB(0, 0, pixels.width, pixels.height, pixels.argb, 0, pixels.width)
        into.parentFile.mkdirs()
        check(ImageIO.write(image, "png", into))
    }
}
