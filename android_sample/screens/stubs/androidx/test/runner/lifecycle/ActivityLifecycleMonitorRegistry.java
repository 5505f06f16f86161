package androidx.test.runner.lifecycle;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public final class ActivityLifecycleMonitorRegistry {
    private static ActivityLifecycleMonitor m;
    public static ActivityLifecycleMonitor getInstance() { return m; }
    public static void registerInstance(ActivityLifecycleMonitor n) { m = n; }
}
