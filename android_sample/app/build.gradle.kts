plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "org.mobiledistill.sample"
    compileSdk = 35
    defaultConfig {
        applicationId = "org.mobiledistill.sample"
        minSdk = 21 // Camera2
        targetSdk = 35
        versionCode = 1
        versionName = "0.1.0"
        ndk { abiFilters += listOf("armeabi-v7a", "arm64-v8a") }
    }
    androidResources { noCompress += "tflite" } // so that the model can be mapped into memory
    packaging { jniLibs { useLegacyPackaging = false } } // libraries are mapped out of the APK
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

kotlin {
    compilerOptions { jvmTarget.set(org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_11) }
}

dependencies {
    implementation(project(":inference"))
}
