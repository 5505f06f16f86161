package org.mobiledistill.inference.core

import com.sun.management.ThreadMXBean
import java.lang.management.ManagementFactory
import java.util.concurrent.Callable
import java.util.concurrent.Executors
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** One object owns engine and buffers, whoever calls it. */
class ModelTest {
    private val manifest = Manifests.classifier()

    @Test
    fun threadsTakeTurns() {
        val engine = FakeEngine(manifest)
        val classifier = Classifier(Model(manifest, engine))
        val pool = Executors.newFixedThreadPool(8)
        val answers = pool.invokeAll(
            List(400) { number ->
                Callable {
                    val grey = number % 256
                    val image = Pixels(4, 4, IntArray(16) { (255 shl 24) or grey * 0x010101 })
                    classifier.classify(image, 1).single().score == grey / 255f
                }
            },
        )
        assertTrue(answers.all { it.get() })
        pool.shutdown()
        assertFalse(engine.met)
    }

    @Test
    fun closingWaitsAndIsFinal() {
        val engine = FakeEngine(manifest)
        val classifier = Classifier(Model(manifest, engine))
        val pool = Executors.newFixedThreadPool(4)
        val outcomes = pool.invokeAll(
            List(200) { number ->
                Callable {
                    if (number == 100) classifier.close()
                    try {
                        classifier.classify(Pixels(4, 4)).size
                    } catch (_: ModelClosedException) {
                        -1
                    }
                }
            },
        ).map { it.get() }
        pool.shutdown()
        assertTrue(outcomes.contains(-1))
        assertFalse(engine.met)
        classifier.close()
        assertEquals(1, engine.closed)
    }

    @Test
    fun anEngineOfOtherSizesIsRefusedAndClosed() {
        val engine = FakeEngine(Manifests.classifier { it["labels"] = listOf("a", "b"); it.remove("display"); it["outputs"] = two })
        val error = assertThrows(ModelRefusedException::class.java) { Model(manifest, engine) }
        assertEquals("student.int8.tflite takes 48 bytes and gives 8; model.json says 48 and 12", error.message)
        assertEquals(1, engine.closed)
    }

    @Test
    fun theWrongTaskIsRefusedAndClosed() {
        val engine = FakeEngine(manifest)
        val error = assertThrows(WrongTaskException::class.java) { Segmenter(Model(manifest, engine)) }
        assertEquals("student.int8.tflite says one label an image: use a classifier", error.message)
        assertEquals(1, engine.closed)
    }

    @Test
    fun aLoopOverFramesAllocatesNothing() {
        val classifier = Classifier(Model(manifest, FakeEngine(manifest)))
        val dense = Manifests.segmenter(listOf(1, 4, 4, 3), "probabilities")
        val segmenter = Segmenter(Model(dense, FakeEngine(dense)))
        val frame = CameraFrame()
        val image = Pixels(48, 64)
        val planes = List(3) { Plane(directBuffer(64 * 48), 64, if (it == 0) 1 else 2) }
        val scores = FloatArray(classifier.classes)
        val smoothing = Smoothing()
        val map = segmenter.newMap()
        val mask = ByteArray(48 * 48)
        val layer = IntArray(48 * 48)
        val overlay = Overlay(intArrayOf(0, 1, 2), 0)
        fun round() {
            frame.convert(planes[0], planes[1], planes[2], 64, 48, Orientation.TURNED_90, image)
            classifier.scores(image, scores)
            smoothing.smooth(scores)
            segmenter.segment(image, map)
            map.mask(48, 48, mask)
            overlay.layer(mask, 48, 48, layer)
        }
        val threads = ManagementFactory.getThreadMXBean() as ThreadMXBean
        val own = Thread.currentThread().id
        repeat(50) { round() }
        val before = threads.getThreadAllocatedBytes(own)
        repeat(50) { round() }
        val bytes = (threads.getThreadAllocatedBytes(own) - before) / 50
        // Three duplicates of a plane's buffer, of 64 bytes each: so that a frame is read from its start, untouched.
        assertTrue("$bytes bytes a frame", bytes <= 3 * 64 + 16)
    }

    private companion object {
        val two = listOf(mapOf("name" to "x", "dtype" to "float32", "shape" to listOf(1, 2)))
    }
}
