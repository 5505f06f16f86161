plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "org.mobiledistill.inference"
    compileSdk = 35
    defaultConfig {
        minSdk = 19 // TensorFlow Lite 2.16.1's own
        consumerProguardFiles("consumer-rules.pro")
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

kotlin {
    compilerOptions { jvmTarget.set(org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_11) }
}

dependencies {
    // Written out, so that this folder can be included into a project with another version catalogue.
    api("org.tensorflow:tensorflow-lite:2.16.1")
}
