// The library's pure half, compiled without Android, and its tests: unit tests of an Android module cannot see Java's own
// image classes, by which they read and draw PNGs.
plugins {
    alias(libs.plugins.kotlin.jvm)
}

kotlin {
    compilerOptions { jvmTarget.set(org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_11) }
    sourceSets["main"].kotlin.srcDir("../inference/src/main/kotlin/org/mobiledistill/inference/core")
}

java {
    sourceCompatibility = JavaVersion.VERSION_11
    targetCompatibility = JavaVersion.VERSION_11
}

dependencies {
    testImplementation(libs.junit)
    testImplementation(libs.jna)
}
