package androidx.test.internal.runner.lifecycle;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public final class ActivityLifecycleMonitorImpl implements androidx.test.runner.lifecycle.ActivityLifecycleMonitor {
    public void addLifecycleCallback(androidx.test.runner.lifecycle.ActivityLifecycleCallback c) { }
    public void removeLifecycleCallback(androidx.test.runner.lifecycle.ActivityLifecycleCallback c) { }
    public androidx.test.runner.lifecycle.Stage getLifecycleStageOf(android.app.Activity a) { return null; }
    public java.util.Collection<android.app.Activity> getActivitiesInStage(androidx.test.runner.lifecycle.Stage s) { return new java.util.ArrayList<>(); }
    public void signalLifecycleChange(androidx.test.runner.lifecycle.Stage s, android.app.Activity a) { }
}
