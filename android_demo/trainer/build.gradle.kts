plugins {
    id("com.android.library")
    kotlin("android")
}

android {
    namespace = "org.pocketfleet.trainer"
    compileSdk = 34
    defaultConfig {
        minSdk = 26
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    kotlinOptions {
        jvmTarget = "11"
        allWarningsAsErrors = true
    }
    sourceSets {
        // The other folders below src are a desktop's.
        getByName("main").java.setSrcDirs(listOf("src/main/kotlin"))
        // The tests need the desktop's JNI library: make test-android runs them.
        getByName("test").java.setSrcDirs(emptyList<String>())
    }
}

dependencies {
    api(project(":core"))
    // The programs are exported for 1.5; earlier ones are untried through Gradle.
    implementation("org.pytorch:executorch-android:1.5.0")
}
