package androidx.test.platform.app;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public final class InstrumentationRegistry {
    private static android.app.Instrumentation i;
    public static android.app.Instrumentation getInstrumentation() { if (i == null) throw new IllegalStateException("none"); return i; }
    public static void registerInstance(android.app.Instrumentation n, android.os.Bundle b) { i = n; }
    public static android.os.Bundle getArguments() { return new android.os.Bundle(); }
}
