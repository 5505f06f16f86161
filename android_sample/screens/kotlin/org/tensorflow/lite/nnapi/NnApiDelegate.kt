package org.tensorflow.lite.nnapi

import org.tensorflow.lite.Delegate

/** Stands in for the phone's; there is no NNAPI here. */
class NnApiDelegate(@Suppress("UNUSED_PARAMETER") options: Options) : Delegate {
    class Options {
        fun setUseNnapiCpu(@Suppress("UNUSED_PARAMETER") use: Boolean) = this
    }

    override fun close() = Unit
}
