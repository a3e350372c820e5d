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
        getByName("test").java.setSrcDirs(listOf("src/test/kotlin"))
    }
}

dependencies {
    implementation(project(":core"))
    implementation(project(":trainer"))
    testImplementation(kotlin("test-junit"))
    testImplementation("org.json:json:20240303")
}
