"""What is told of a version in several places is one and the same."""

import re
from pathlib import Path
from typing import Final

import pytest

from packages import PACKAGES
from resources import VERSION_NAME

pytestmark = pytest.mark.android

DEMO: Final = Path(__file__).parents[2] / "android_demo"


def found(path: str, pattern: str) -> str:
    """The one place in a file that matches."""
    (match,) = re.findall(pattern, (DEMO / path).read_text())
    return str(match)


def test_the_app_tells_the_version_that_both_builds_put_into_its_manifest() -> None:
    told = found("app/src/main/kotlin/org/pocketfleet/demo/DemoApplication.kt", r'VERSION = "pocketfleet-demo (.*)"')
    assert told == VERSION_NAME == found("app/build.gradle.kts", r'versionName = "(.*)"')


def test_each_build_tells_the_executorch_that_it_packs() -> None:
    told = r'"executorch_version" translatable="false">(.*)<'
    package = PACKAGES[found("app/src/main/res/values/runtime.xml", told).replace(" ", "-")]
    assert package.name == "react-native-executorch"
    gradle = found("trainer/build.gradle.kts", r"org\.pytorch:executorch-android:(.*)\"")
    assert found("app/src/gradle/res/values/runtime.xml", told) == gradle
