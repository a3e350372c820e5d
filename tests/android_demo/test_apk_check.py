"""What makes an APK be refused, on small ones made for it by the real tools."""

import subprocess
from pathlib import Path

import pytest

import apk_check
from apk_check import check_apk, program_needs
from apk_file import write_apk
from elf_file import ElfFile
from packages import BuildError
from pocketfleet import Bundle
from resources import aapt2

pytestmark = pytest.mark.android

FRAMEWORK = "/usr/share/android-framework-res/framework-res.apk"
MANIFEST = """<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="org.pocketfleet.demo">
{permissions}
<application android:label="x"><activity android:name="org.pocketfleet.demo.MainActivity" /></application>
</manifest>
"""


def linked(folder: Path, *permissions: str) -> Path:
    asked = "".join(f'<uses-permission android:name="android.permission.{name}" />' for name in permissions)
    (folder / "AndroidManifest.xml").write_text(MANIFEST.format(permissions=asked))
    path = folder / "small.apk"
    command = [str(aapt2()), "link", "-I", FRAMEWORK, "--manifest", str(folder / "AndroidManifest.xml")]
    subprocess.run([*command, "-o", str(path)], check=True)
    return path


def library(**given: object) -> ElfFile:
    facts = {"alignment": 16384, "needed": (), "defined": frozenset(), "undefined": frozenset(), "data": b""} | given
    return ElfFile(**facts)  # type: ignore[arg-type]


def test_exactly_three_permissions(tmp_path: Path) -> None:
    three = apk_check.PERMISSIONS
    assert list(apk_check._permissions(linked(tmp_path, *three))) == []
    for wrong in ((*three, "RECEIVE_BOOT_COMPLETED"), three[:2], ("CAMERA", *three[1:])):
        (problem,) = apk_check._permissions(linked(tmp_path, *wrong))
        assert problem.startswith(f"permissions must be exactly {', '.join(three)}, got ")


def test_the_activity_and_both_jobs_are_in_the_manifest(tmp_path: Path) -> None:
    assert list(apk_check._components(linked(tmp_path, "INTERNET"))) == [
        "the manifest does not name TrainingJob",
        "the manifest does not name BenchmarkJob",
        "the manifest does not name DemoApplication",
        "others than Android's scheduler may start the jobs",
    ]


def test_an_apk_that_is_not_signed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"apksigner verify .* ended with 1"):
        check_apk(linked(tmp_path, *apk_check.PERMISSIONS), {}, min_sdk=26)


def test_limits_are_named_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    def problems(name: str, alignment: int) -> list[str]:
        return list(apk_check._alignment("x86_64", name, library(alignment=alignment)))

    assert problems("libexecutorch.so", 16384) == []
    assert problems("libfbjni.so", 4096) == []
    assert "libfbjni.so is aligned to 4 KiB (LIMIT" in capsys.readouterr().out
    assert problems("libexecutorch.so", 4096) == [
        "x86_64: libexecutorch.so is aligned to 4096 bytes, which the list of limits does not say"
    ]
    # A limit that is none any more must leave the list.
    assert len(problems("libfbjni.so", 65536)) == 1


def test_what_a_library_needs_must_be_there() -> None:
    fbjni = library(defined=frozenset({"_Zone", "two"}))
    runtime = library(needed=("libfbjni.so", "libc.so"), undefined=frozenset({"_Zone", "malloc"}))
    packaged = {"libfbjni.so": fbjni, "libexecutorch.so": runtime}
    assert list(apk_check._needs("x86_64", "libexecutorch.so", runtime, packaged)) == []
    assert list(apk_check._needs("x86_64", "libexecutorch.so", runtime, {"libexecutorch.so": runtime})) == [
        "x86_64: libexecutorch.so needs libfbjni.so, which is neither packaged nor Android's",
        "x86_64: libexecutorch.so needs 1 symbols that no packaged library has, such as _Zone",
    ]


def test_a_programs_operators_are_looked_for_in_the_runtime(boston_bundle: Bundle, tmp_path: Path) -> None:
    needs = program_needs(boston_bundle.path / "model.pte")
    assert {"aten::mm.out", "XnnpackBackend"} <= set(needs)
    missing = list(apk_check._libraries(_empty(tmp_path), {"boston": boston_bundle.path / "model.pte"}))
    assert missing == [f"{abi}: there is no libexecutorch.so" for abi in ("arm64-v8a", "x86_64")]
    whole = library(data=b"\0" + b"\0".join(name.encode() for name in needs) + b"\0")
    assert [name for name in needs if not apk_check._is_in(name, whole)] == []
    # The name of another overload is none.
    assert not apk_check._is_in("aten::mm", whole)
    assert not apk_check._is_in("aten::m.out", whole)


def _empty(folder: Path) -> Path:
    write_apk(folder / "empty.apk", {"classes.dex": (b"", False)})
    return folder / "empty.apk"
