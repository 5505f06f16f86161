package androidx.test.internal.platform.content;

/** Stands in for a class of androidx.test, which is not on Maven Central; Robolectric links to it. */
public interface PermissionGranter {
    void addPermissions(String... names);
    void requestPermissions();
}
