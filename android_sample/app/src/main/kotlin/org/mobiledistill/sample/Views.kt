package org.mobiledistill.sample

import android.app.Activity
import android.view.View

/** A view of this screen's layout. `findViewById` has a type parameter since Android 8 alone; this compiles with both. */
@Suppress("UNCHECKED_CAST")
internal fun <T : View> Activity.view(id: Int): T {
    val found: View? = findViewById(id)
    return found as T
}
