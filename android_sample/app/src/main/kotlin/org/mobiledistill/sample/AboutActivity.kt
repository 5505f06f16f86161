package org.mobiledistill.sample

import android.app.Activity
import android.os.Bundle
import android.os.Handler
import android.os.Looper
import android.view.View
import android.widget.TextView
import java.util.concurrent.Executors
import org.mobiledistill.inference.core.ModelException
import org.tensorflow.lite.TensorFlowLite

/** What is known of the model, and whether it answers here as where it was made. */
class AboutActivity : Activity() {
    private val worker = Executors.newSingleThreadExecutor()
    private val main = Handler(Looper.getMainLooper())

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.about)
        actionBar?.setDisplayHomeAsUpEnabled(true)
        view<View>(R.id.again).setOnClickListener { look(again = true) }
        look(again = false)
    }

    override fun onDestroy() {
        worker.shutdown()
        super.onDestroy()
    }

    private fun look(again: Boolean) {
        val button = view<View>(R.id.again)
        button.isEnabled = false
        show(R.id.golden, getString(R.string.golden_running))
        worker.execute {
            var facts = ""
            val outcome = try {
                Vision(applicationContext).use { vision ->
                    val runtime = "runtime: TensorFlow Lite ${TensorFlowLite.runtimeVersion()}"
                    facts = vision.manifest.facts.joinToString("\n") { (name, value) -> "$name: $value" } + "\n$runtime"
                    GoldenCheck(applicationContext, vision).outcome(again).first
                }
            } catch (error: ModelException) {
                error.message.orEmpty()
            }
            main.post {
                show(R.id.facts, facts)
                show(R.id.golden, outcome)
                button.isEnabled = true
                button.visibility = View.VISIBLE
            }
        }
    }

    private fun show(view: Int, text: String) {
        view<TextView>(view).text = text
    }
}
