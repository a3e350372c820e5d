plugins {
    id("com.android.application")
    kotlin("android")
}

android {
    namespace = "org.pocketfleet.demo"
    compileSdk = 34
    defaultConfig {
        applicationId = "org.pocketfleet.demo"
        minSdk = 26
        targetSdk = 34
        versionCode = 1
        versionName = "0.1.0"
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
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
        getByName("main").java.setSrcDirs(listOf("src/main/kotlin"))
        // The tests need the desktop's JNI library and exported bundles: make test-android runs them.
        getByName("test").java.setSrcDirs(emptyList<String>())
        // What this build has otherwise than the toolchain's; a build type's resources go before main's.
        getByName("debug").res.srcDirs("src/debug/res", "src/gradle/res")
        getByName("release").res.srcDirs("src/release/res", "src/gradle/res")
    }
}

dependencies {
    implementation(project(":core"))
    implementation(project(":trainer"))
}
