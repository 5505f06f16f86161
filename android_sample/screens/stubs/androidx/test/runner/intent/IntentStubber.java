package androidx.test.runner.intent;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public interface IntentStubber {
    android.app.Instrumentation.ActivityResult getActivityResultForIntent(android.content.Intent i);
}
