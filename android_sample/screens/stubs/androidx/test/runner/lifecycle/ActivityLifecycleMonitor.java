package androidx.test.runner.lifecycle;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public interface ActivityLifecycleMonitor {
    void addLifecycleCallback(ActivityLifecycleCallback c);
    void removeLifecycleCallback(ActivityLifecycleCallback c);
    Stage getLifecycleStageOf(android.app.Activity a);
    java.util.Collection<android.app.Activity> getActivitiesInStage(Stage s);
}
