package androidx.test.internal.runner.lifecycle;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public final class ApplicationLifecycleMonitorImpl implements androidx.test.runner.lifecycle.ApplicationLifecycleMonitor {
    public void signalLifecycleChange(android.app.Application a, androidx.test.runner.lifecycle.ApplicationStage s) { }
}
