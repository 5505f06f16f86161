package androidx.test.internal.platform;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public interface ThreadChecker {
    void checkMainThread();
    void checkNotMainThread();
}
