package org.mobiledistill.inference.core

import java.io.File
import java.nio.ByteBuffer
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Test

/** The whole chain on a PC, with the kernels that Python has: what `distill export android` wrote answers as in Python. */
class ExportTest {
    @Test
    fun exportedModelsAnswerAsInPython() {
        assumeTrue("only where pytest names exports", TestFiles.exports.isNotEmpty() && TestFiles.liteRt != null)
        for (folder in TestFiles.exports) {
            val manifest = ModelManifest.parse(File(folder, ModelManifest.NAME).readText())
            assertEquals(manifest.labels, File(folder, "labels.txt").readLines())
            manifest.check(ByteBuffer.wrap(File(folder, manifest.file).readBytes()))
            val engine = LiteRtEngine(TestFiles.liteRt!!, File(folder, manifest.file), manifest)
            Model(manifest, engine).use { model ->
                val results = Golden(model, { File(folder, it).readBytes() }, TestFiles::decode).check()
                assertTrue("${results.size} pictures", results.size >= 4)
                for (result in results) {
                    val where = "${manifest.file}, ${result.picture}"
                    println("$where: ${result.pixelsDifferent} ${result.difference} ${result.maskDifferent}")
                    assertEquals(where, null, result.problem)
                    assertEquals(where, 0, result.pixelsDifferent)
                    assertEquals("$where: bit for bit", 0.0, result.difference, 0.0)
                    assertEquals(where, 0, result.maskDifferent)
                }
            }
        }
    }
}
