package org.mobiledistill.sample

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.ImageFormat
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CaptureRequest
import android.media.Image
import android.media.ImageReader
import android.os.Handler
import android.os.HandlerThread
import android.util.Size
import android.view.Surface
import java.io.Closeable

/** A camera that was chosen: its name, the size of its frames, and how its sensor stands in the phone. */
class CameraChoice(val id: String, val size: Size, val sensor: Int, val front: Boolean) {
    /** Degrees clockwise that make a frame upright on a screen turned by `display` degrees. */
    fun rotation(display: Int): Int = if (front) (sensor + display) % 360 else (sensor - display + 360) % 360

    companion object {
        private const val WIDTH = 640
        private const val HEIGHT = 480

        /** The back camera, else any; null where there is none. */
        fun of(manager: CameraManager): CameraChoice? {
            val all = try {
                manager.cameraIdList.toList()
            } catch (_: CameraAccessException) {
                emptyList()
            }
            val found = all.mapNotNull { id -> choice(manager, id) }
            return found.firstOrNull { !it.front } ?: found.firstOrNull()
        }

        private fun choice(manager: CameraManager, id: String): CameraChoice? {
            val facts = try {
                manager.getCameraCharacteristics(id)
            } catch (_: CameraAccessException) {
                return null
            } catch (_: IllegalArgumentException) { // unplugged in between
                return null
            }
            val sizes = facts.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP)
                ?.getOutputSizes(ImageFormat.YUV_420_888) ?: return null
            // Small frames are fast to convert, and still larger than what models take.
            val size = sizes.minByOrNull { Math.abs(it.width * it.height - WIDTH * HEIGHT) } ?: return null
            val sensor = facts.get(CameraCharacteristics.SENSOR_ORIENTATION) ?: 0
            val front = facts.get(CameraCharacteristics.LENS_FACING) == CameraCharacteristics.LENS_FACING_FRONT
            return CameraChoice(id, size, sensor, front)
        }
    }
}

/**
 * An open camera whose frames go to the screen and, as many as can be kept up with, to somebody who looks at them.
 *
 * @param look called on a thread of its own with one frame after another; newer ones replace those it had no time for.
 * @param lost called on that thread once, if the camera is taken away or breaks.
 */
class Camera(
    private val choice: CameraChoice,
    private val texture: SurfaceTexture,
    private val look: (Image) -> Unit,
    private val lost: (String) -> Unit,
) : Closeable {
    private val thread = HandlerThread("camera").apply { start() }
    private val handler = Handler(thread.looper)
    private val reader = ImageReader.newInstance(choice.size.width, choice.size.height, ImageFormat.YUV_420_888, 2)
    private var device: CameraDevice? = null
    private var session: CameraCaptureSession? = null
    private var surface: Surface? = null

    @Volatile
    private var closed = false

    /** The permission must have been given. */
    @SuppressLint("MissingPermission")
    fun open(context: Context) {
        reader.setOnImageAvailableListener({ source -> take(source) }, handler)
        val manager = context.getSystemService(Context.CAMERA_SERVICE) as CameraManager
        handler.post {
            guarded { manager.openCamera(choice.id, Opened(), handler) }
        }
    }

    private fun take(source: ImageReader) {
        // A frame may still be on its way when the camera is closed.
        val frame = if (closed) null else try {
            source.acquireLatestImage()
        } catch (_: IllegalStateException) {
            null
        }
        frame?.use { look(it) }
    }

    private inner class Opened : CameraDevice.StateCallback() {
        override fun onOpened(camera: CameraDevice) {
            if (closed) return camera.close()
            device = camera
            texture.setDefaultBufferSize(choice.size.width, choice.size.height)
            val shown = Surface(texture).also { surface = it }
            @Suppress("DEPRECATION") // its successor came with Android 9
            guarded { camera.createCaptureSession(listOf(shown, reader.surface), Configured(camera, shown), handler) }
        }

        override fun onDisconnected(camera: CameraDevice) = fail("another app uses it")

        override fun onError(camera: CameraDevice, error: Int) = fail("error $error of the camera")
    }

    private inner class Configured(private val camera: CameraDevice, private val shown: Surface) :
        CameraCaptureSession.StateCallback() {
        override fun onConfigured(configured: CameraCaptureSession) {
            if (closed) return
            session = configured
            guarded {
                val request = camera.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
                request.addTarget(shown)
                request.addTarget(reader.surface)
                request.set(CaptureRequest.CONTROL_AF_MODE, CaptureRequest.CONTROL_AF_MODE_CONTINUOUS_PICTURE)
                configured.setRepeatingRequest(request.build(), null, handler)
            }
        }

        override fun onConfigureFailed(configured: CameraCaptureSession) = fail("it refuses frames of ${choice.size}")
    }

    private fun guarded(work: () -> Unit) {
        try {
            work()
        } catch (error: CameraAccessException) {
            fail(error.message ?: "no access")
        } catch (error: SecurityException) {
            fail(error.message ?: "no permission")
        } catch (error: IllegalStateException) { // closed in between
            fail(error.message ?: "closed")
        } catch (error: IllegalArgumentException) {
            fail(error.message ?: "refused")
        }
    }

    private fun fail(reason: String) {
        if (!closed) lost(reason)
    }

    /** Waits for the frame that is being looked at. */
    override fun close() {
        if (closed) return
        closed = true
        handler.post {
            session?.close()
            device?.close()
            surface?.release()
            reader.close()
            thread.quitSafely()
        }
        thread.join(CLOSING_MS)
    }

    private companion object {
        const val CLOSING_MS = 3000L
    }
}
