package org.mobiledistill.sample

import android.Manifest
import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Context
import android.content.Intent
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.graphics.Matrix
import android.graphics.RectF
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraManager
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.os.Handler
import android.os.Looper
import android.view.Menu
import android.view.MenuItem
import android.view.Surface
import android.view.TextureView
import android.view.View
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import java.io.IOException
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors
import org.mobiledistill.inference.Photos
import org.mobiledistill.inference.core.ModelException

/** What the screen shows; nothing else decides how it looks. */
private sealed class Screen {
    /** A sentence, and nothing seen. */
    class Message(val text: String) : Screen()

    /** A picture of the gallery, and what was seen in it. */
    class Picture(val bitmap: Bitmap, val seen: Seen) : Screen()

    /** The camera; `seen` is null before the first frame. */
    class Live(val seen: Seen?) : Screen()
}

/** What outlives a turn of the screen: the model, the thread it works on, and what was shown. */
private class Kept(context: Context) {
    val worker: ExecutorService = Executors.newSingleThreadExecutor()
    private val application = context.applicationContext

    /** Made and used on [worker] alone, until the camera's frames come on a thread of their own. */
    @Volatile
    var vision: Vision? = null
        private set
    var screen: Screen = Screen.Message(context.getString(R.string.loading))
    var golden: Pair<String, Boolean>? = null
    var live = false

    /** @throws ModelException with what is wrong. */
    fun open(): Vision = vision ?: Vision(application).also { vision = it }

    fun close() {
        worker.execute { vision?.close() }
        worker.shutdown()
    }
}

/** Picture or camera in, labels or masks out. */
class MainActivity : Activity(), TextureView.SurfaceTextureListener {
    private lateinit var kept: Kept
    private lateinit var preview: PreviewView
    private lateinit var picture: ImageView
    private lateinit var bars: BarsView
    private val main = Handler(Looper.getMainLooper())
    private var camera: Camera? = null
    private var gone = false

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.main)
        preview = view<PreviewView>(R.id.preview)
        picture = view<ImageView>(R.id.picture)
        bars = view<BarsView>(R.id.bars)
        preview.surfaceTextureListener = this
        view<View>(R.id.gallery).setOnClickListener { choosePicture() }
        view<View>(R.id.camera).setOnClickListener { if (kept.live) stopCamera() else startCamera() }
        @Suppress("DEPRECATION") // its successor needs AndroidX
        val before = lastNonConfigurationInstance as Kept?
        kept = before ?: Kept(this)
        if (before == null) {
            kept.live = state?.getBoolean(LIVE) ?: false
            work {
                kept.open()
                show(if (kept.live) Screen.Live(null) else Screen.Message(getString(R.string.start)))
            }
        }
        show(kept.screen)
        checkGolden()
    }

    @Deprecated("its successor needs AndroidX")
    override fun onRetainNonConfigurationInstance(): Any = kept

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        state.putBoolean(LIVE, kept.live)
    }

    override fun onResume() {
        super.onResume()
        openCamera()
    }

    override fun onPause() {
        closeCamera()
        super.onPause()
    }

    override fun onDestroy() {
        gone = true
        if (!isChangingConfigurations) kept.close()
        super.onDestroy()
    }

    override fun onCreateOptionsMenu(menu: Menu): Boolean {
        menu.add(Menu.NONE, R.id.facts, Menu.NONE, R.string.about).setShowAsAction(MenuItem.SHOW_AS_ACTION_IF_ROOM)
        return true
    }

    override fun onOptionsItemSelected(item: MenuItem): Boolean {
        if (item.itemId != R.id.facts) return super.onOptionsItemSelected(item)
        startActivity(Intent(this, AboutActivity::class.java))
        return true
    }

    // Pictures of the gallery

    private fun choosePicture() {
        stopCamera()
        val asked = Intent(Intent.ACTION_GET_CONTENT).setType("image/*").addCategory(Intent.CATEGORY_OPENABLE)
        try {
            @Suppress("DEPRECATION") // its successor needs AndroidX
            startActivityForResult(asked, PICTURE)
        } catch (_: ActivityNotFoundException) {
            show(Screen.Message(getString(R.string.no_gallery)))
        }
    }

    @Deprecated("its successor needs AndroidX")
    override fun onActivityResult(asked: Int, outcome: Int, answer: Intent?) {
        val uri = answer?.data
        if (asked == PICTURE && outcome == RESULT_OK && uri != null) work { look(uri) }
    }

    private fun look(uri: Uri) {
        val found = try {
            val bitmap = Photos.decode(contentResolver, uri)
            Screen.Picture(bitmap, kept.open().look(bitmap))
        } catch (error: IOException) {
            Screen.Message(getString(R.string.unreadable, error.message))
        } catch (error: SecurityException) { // the other app has taken its permission back
            Screen.Message(getString(R.string.unreadable, error.message))
        } catch (_: OutOfMemoryError) {
            Screen.Message(getString(R.string.too_large))
        }
        show(found)
    }

    // The camera

    private fun startCamera() {
        if (CameraChoice.of(manager()) == null) return show(Screen.Message(getString(R.string.no_camera)))
        kept.live = true
        if (!permitted() && Build.VERSION.SDK_INT >= Build.VERSION_CODES.M) {
            requestPermissions(arrayOf(Manifest.permission.CAMERA), PERMISSION)
        } else {
            show(Screen.Live(null))
            openCamera()
        }
    }

    override fun onRequestPermissionsResult(asked: Int, names: Array<String>, answers: IntArray) {
        if (asked != PERMISSION) return
        if (answers.firstOrNull() == PackageManager.PERMISSION_GRANTED) {
            show(Screen.Live(null))
            openCamera()
        } else {
            kept.live = false
            show(Screen.Message(getString(R.string.camera_refused)))
        }
    }

    private fun stopCamera() {
        if (!kept.live) return
        kept.live = false
        closeCamera()
        show(Screen.Message(getString(R.string.start)))
    }

    /** Opens it once all is there: wish, permission, model and a surface to show it on. Called whenever one has come. */
    private fun openCamera() {
        val vision = kept.vision
        val texture = preview.surfaceTexture
        if (!kept.live || camera != null || vision == null || texture == null || !permitted()) return
        val choice = CameraChoice.of(manager()) ?: return show(Screen.Message(getString(R.string.no_camera)))
        val display = displayRotation()
        val rotation = choice.rotation(display)
        preview.fit(choice.size.width, choice.size.height, display, choice.sensor % 180 != 0)
        val live = vision.Live()
        val turned = rotation % 180 != 0
        val uprightWidth = if (turned) choice.size.height else choice.size.width
        val uprightHeight = if (turned) choice.size.width else choice.size.height
        camera = Camera(
            choice,
            texture,
            look = { frame ->
                val seen = live.look(frame, rotation)
                main.post { if (camera != null) showLive(seen, uprightWidth, uprightHeight, vision.seen(uprightWidth, uprightHeight)) }
            },
            lost = { reason ->
                main.post {
                    kept.live = false
                    closeCamera()
                    show(Screen.Message(getString(R.string.camera_lost, reason)))
                }
            },
        ).also { it.open(this) }
    }

    private fun closeCamera() {
        camera?.close()
        camera = null
    }

    private fun showLive(seen: Seen, width: Int, height: Int, part: RectF) {
        show(Screen.Live(seen))
        val layer = seen.picture ?: return
        // The layer lies over that part of the live picture which the model saw.
        val frame = preview.frame(width, height)
        val matrix = Matrix()
        matrix.setScale(frame.width() * part.width() / layer.width, frame.height() * part.height() / layer.height)
        matrix.postTranslate(frame.left + frame.width() * part.left, frame.top + frame.height() * part.top)
        picture.imageMatrix = matrix
    }

    private fun manager() = getSystemService(Context.CAMERA_SERVICE) as CameraManager

    private fun permitted(): Boolean = Build.VERSION.SDK_INT < Build.VERSION_CODES.M ||
        checkSelfPermission(Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED

    @Suppress("DEPRECATION") // Context.getDisplay came with Android 11
    private fun displayRotation(): Int = when (windowManager.defaultDisplay.rotation) {
        Surface.ROTATION_90 -> 90
        Surface.ROTATION_180 -> 180
        Surface.ROTATION_270 -> 270
        else -> 0
    }

    override fun onSurfaceTextureAvailable(texture: SurfaceTexture, width: Int, height: Int) = openCamera()

    override fun onSurfaceTextureSizeChanged(texture: SurfaceTexture, width: Int, height: Int) = Unit

    override fun onSurfaceTextureUpdated(texture: SurfaceTexture) = Unit

    override fun onSurfaceTextureDestroyed(texture: SurfaceTexture): Boolean {
        closeCamera()
        return true
    }

    // What is shown

    private fun checkGolden() {
        val known = kept.golden
        if (known != null) return showGolden(known)
        showGolden(getString(R.string.golden_running) to true)
        work {
            val outcome = GoldenCheck(applicationContext, kept.open()).outcome()
            main.post {
                kept.golden = outcome
                if (!gone) showGolden(outcome)
            }
        }
    }

    private fun showGolden(outcome: Pair<String, Boolean>) {
        val view = view<TextView>(R.id.golden)
        view.text = outcome.first
        @Suppress("DEPRECATION")
        view.setTextColor(resources.getColor(if (outcome.second) R.color.text_quiet else R.color.bad))
    }

    /** On the model's thread; what is wrong with the model becomes what is shown. */
    private fun work(task: () -> Unit) = kept.worker.execute {
        try {
            task()
            main.post { if (!gone) openCamera() }
        } catch (error: ModelException) {
            show(Screen.Message(error.message ?: error.javaClass.simpleName))
        } catch (_: OutOfMemoryError) {
            show(Screen.Message(getString(R.string.too_large)))
        }
    }

    private fun show(screen: Screen) {
        if (Looper.myLooper() != Looper.getMainLooper()) {
            main.post { show(screen) }
            return
        }
        kept.screen = screen
        if (gone) return
        val live = screen is Screen.Live
        val seen = when (screen) {
            is Screen.Message -> null
            is Screen.Picture -> screen.seen
            is Screen.Live -> screen.seen
        }
        preview.visibility = if (live) View.VISIBLE else View.GONE
        view<Button>(R.id.camera).setText(if (kept.live) R.string.camera_stop else R.string.camera)
        picture.scaleType = if (live) ImageView.ScaleType.MATRIX else ImageView.ScaleType.FIT_CENTER
        picture.setImageBitmap(if (screen is Screen.Picture) seen?.picture ?: screen.bitmap else seen?.picture)
        picture.contentDescription = getString(
            when {
                screen is Screen.Message -> R.string.picture_empty
                live -> R.string.live
                seen?.picture != null -> R.string.picture_mask
                else -> R.string.picture_shown
            },
        )
        bars.show(seen?.bars ?: emptyList())
        val message = view<TextView>(R.id.message)
        message.text = when {
            screen is Screen.Message -> screen.text
            seen != null && seen.bars.isEmpty() -> getString(R.string.nothing)
            else -> ""
        }
        message.visibility = if (message.text.isEmpty()) View.GONE else View.VISIBLE
        view<TextView>(R.id.latency).text = seen?.let { getString(R.string.latency, it.milliseconds) } ?: ""
    }

    private companion object {
        const val PICTURE = 1
        const val PERMISSION = 2
        const val LIVE = "live"
    }
}
