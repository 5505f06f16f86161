package org.mobiledistill.sample

import android.content.Context
import org.mobiledistill.inference.core.ModelException

/** What came of the golden pictures, kept for each model so that they are looked at once. */
class GoldenCheck(private val context: Context, private val vision: Vision) {
    private val kept = context.getSharedPreferences("golden", Context.MODE_PRIVATE)

    /** The sentence that is shown, and whether all is well. Looks at the pictures the first time, or if asked to. */
    fun outcome(again: Boolean = false): Pair<String, Boolean> {
        val key = vision.manifest.sha256
        val known = kept.getString(key, null)
        if (known != null && !again) return known.drop(1) to known.startsWith(PASSED)
        val (sentence, passed) = compare()
        // Only the model at hand is of interest.
        kept.edit().clear().putString(key, (if (passed) PASSED else FAILED) + sentence).apply()
        return sentence to passed
    }

    private fun compare(): Pair<String, Boolean> {
        val results = try {
            vision.checkGolden()
        } catch (error: ModelException) {
            return context.getString(R.string.golden_failed, error.message) to false
        }
        val failed = results.firstOrNull { it.problem != null }
        if (failed != null) {
            return context.getString(R.string.golden_failed, "${failed.picture}: ${failed.problem}") to false
        }
        val most = results.maxOfOrNull { it.difference } ?: 0.0
        return context.getString(R.string.golden_passed, results.size, if (most == 0.0) "0" else "%.0e".format(most)) to true
    }

    private companion object {
        const val PASSED = "+"
        const val FAILED = "-"
    }
}
