package androidx.test.runner.intent;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public final class IntentMonitorRegistry {
    public static void registerInstance(IntentMonitor m) { }
}
