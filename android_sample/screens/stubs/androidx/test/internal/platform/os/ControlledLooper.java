package androidx.test.internal.platform.os;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public interface ControlledLooper {}
