package androidx.test.internal.runner.intent;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public final class IntentMonitorImpl implements androidx.test.runner.intent.IntentMonitor {
    public void signalIntent(android.content.Intent i) { }
}
