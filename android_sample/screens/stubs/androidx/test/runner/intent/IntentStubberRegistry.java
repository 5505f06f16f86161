package androidx.test.runner.intent;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public final class IntentStubberRegistry {
    public static boolean isLoaded() { return false; }
    public static IntentStubber getInstance() { return null; }
    public static void reset() { }
}
