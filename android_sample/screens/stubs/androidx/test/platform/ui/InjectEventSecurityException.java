package androidx.test.platform.ui;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public final class InjectEventSecurityException extends Exception {
    public InjectEventSecurityException(String m) { super(m); }
    public InjectEventSecurityException(Throwable t) { super(t); }
}
