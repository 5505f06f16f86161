package org.mobiledistill.sample

import android.app.Activity
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Canvas
import android.net.Uri
import android.os.Looper
import android.view.View
import android.widget.ImageView
import android.widget.TextView
import java.io.File
import java.io.InputStream
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode

/** The app's screens on Android 14's own classes, on this PC: what people see, with a real model behind it. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34], qualifiers = "w360dp-h640dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class ScreensTest {
    private val gallery = Uri.parse("content://gallery/1")

    @Test
    fun theStartSaysWhetherThePhoneAnswersRight() {
        val activity = opened().get()
        assertTrue(text(activity, R.id.golden), text(activity, R.id.golden).startsWith("Golden pictures: passed, 4 of 4"))
        assertEquals("Choose a picture, or open the camera.", text(activity, R.id.message))
        assertEquals("No picture yet", activity.view<View>(R.id.picture).contentDescription)
        keep(activity, "start")
    }

    @Test
    fun aPictureIsAnswered() {
        val activity = opened().get()
        look(activity)
        assertTrue(activity.view<View>(R.id.bars).contentDescription.contains("percent"))
        val shown = activity.view<ImageView>(R.id.picture)
        assertTrue(shown.contentDescription.startsWith("The picture"))
        keep(activity, "picture")
    }

    @Test
    @Config(qualifiers = "w640dp-h360dp-land-night-xhdpi")
    fun soItIsAtNight() {
        val activity = opened().get()
        look(activity)
        keep(activity, "night")
    }

    @Test
    fun turningThePhoneKeepsTheAnswer() {
        val controller = opened()
        look(controller.get())
        val before = controller.get()
        val said = text(before, R.id.latency)
        RuntimeEnvironment.setQualifiers("w640dp-h360dp-land-xhdpi")
        controller.recreate()
        assertTrue(controller.get() !== before)
        assertEquals(said, text(controller.get(), R.id.latency))
        controller.pause().stop().destroy()
    }

    @Test
    fun aPhoneWithoutACameraSaysSo() {
        val activity = opened().get()
        activity.view<View>(R.id.camera).performClick()
        until("no word of the camera") { text(activity, R.id.message) == "This phone has no camera that apps can use." }
    }

    @Test
    fun withoutPermissionTheCameraStaysClosed() {
        val activity = opened().get()
        activity.onRequestPermissionsResult(2, arrayOf("android.permission.CAMERA"), intArrayOf(-1))
        assertTrue(text(activity, R.id.message).startsWith("Without the permission the camera stays closed."))
    }

    @Test
    fun aBrokenPictureSaysSo() {
        val activity = opened().get()
        choose(activity) { "no image".byteInputStream() }
        until("no word of the picture") { text(activity, R.id.message).endsWith("is no image that Android can read") }
    }

    @Test
    fun theFactsOfTheModelAreThere() {
        val activity = Robolectric.buildActivity(AboutActivity::class.java).setup().get()
        until("no facts") { text(activity, R.id.golden).startsWith("Golden pictures: passed") }
        assertTrue(text(activity, R.id.facts).contains("precision: int8"))
        keep(activity, "about")
    }

    @Test
    fun aRunningBenchmarkSaysSo() {
        val activity = Robolectric.buildActivity(BenchmarkActivity::class.java).setup().get()
        keep(activity, "benchmark")
    }

    private fun opened(): ActivityController<MainActivity> {
        val controller = Robolectric.buildActivity(MainActivity::class.java).setup()
        until("no golden pictures") { text(controller.get(), R.id.golden).startsWith("Golden") }
        return controller
    }

    private fun look(activity: Activity) {
        choose(activity) { File(System.getProperty("distill.photo")!!).inputStream() }
        until("no answer") { text(activity, R.id.latency).isNotEmpty() }
    }

    private fun choose(activity: Activity, content: () -> InputStream) {
        activity.view<View>(R.id.gallery).performClick()
        val asked = shadowOf(activity).nextStartedActivityForResult
        shadowOf(activity.contentResolver).registerInputStreamSupplier(gallery) { content() }
        shadowOf(activity).receiveResult(asked.intent, Activity.RESULT_OK, Intent().setData(gallery))
    }

    private fun until(otherwise: String, condition: () -> Boolean) {
        repeat(PATIENCE) {
            shadowOf(Looper.getMainLooper()).idle()
            if (condition()) return
            Thread.sleep(50)
        }
        throw AssertionError(otherwise)
    }

    private fun text(activity: Activity, id: Int) = activity.view<TextView>(id).text.toString()

    private fun keep(activity: Activity, name: String) {
        shadowOf(Looper.getMainLooper()).idle()
        val root = activity.window.decorView
        val bitmap = Bitmap.createBitmap(root.width, root.height, Bitmap.Config.ARGB_8888)
        root.draw(Canvas(bitmap))
        File(System.getProperty("distill.pictures")!!, "$name.png").outputStream().use {
            bitmap.compress(Bitmap.CompressFormat.PNG, 100, it)
        }
    }

    private companion object {
        const val PATIENCE = 600 // times 50 ms: a PC with much else to do
    }
}
