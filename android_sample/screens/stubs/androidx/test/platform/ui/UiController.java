package androidx.test.platform.ui;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public interface UiController {}
