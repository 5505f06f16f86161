package androidx.test.runner.lifecycle;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public interface ActivityLifecycleCallback {
    void onActivityLifecycleChanged(android.app.Activity a, Stage s);
}
