"""The build's parts are the ones of its table, and appear whole."""

import hashlib
import io
import multiprocessing
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from packages import PACKAGES, Archive, BuildError, Package, main, ready

FILES = {f"package/lib/{name}.jar": name.encode() * 1000 for name in ("one", "two")}


def inner_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("com/wanted/A.class", b"class A")
        archive.writestr("com/other/B.class", b"class B")
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("classes.jar", buffer.getvalue())
    return outer.getvalue()


def put_tarball(cache: Path) -> Package:
    """A package whose tarball lies in the cache already."""
    cache.mkdir(exist_ok=True)
    path = cache / "small-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {**FILES, "package/small.aar": inner_archive()}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return Package(
        name="small",
        version="1.0.0",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        purpose="tests",
        files=("lib/*.jar",),
        archives=(Archive(path=("small.aar", "classes.jar"), files=("com/wanted/*",), jar="wanted.jar"),),
    )


def test_what_is_wanted_is_unpacked_and_no_more(tmp_path: Path) -> None:
    package = put_tarball(tmp_path)
    folder = ready(package, cache=tmp_path)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["one.jar", "two.jar", "wanted.jar"]
    assert (folder / "lib" / "one.jar").read_bytes() == FILES["package/lib/one.jar"]
    with zipfile.ZipFile(folder / "wanted.jar") as jar:
        assert jar.namelist() == ["com/wanted/A.class"]
    assert ready(package, cache=tmp_path) == folder
    # Another selection does not find the old folder.
    assert ready(replace(package, files=("lib/one.jar",)), cache=tmp_path) != folder


def test_another_tarball_is_refused_at_every_use(tmp_path: Path) -> None:
    package = put_tarball(tmp_path)
    ready(package, cache=tmp_path)
    tarball = tmp_path / package.tarball
    tarball.write_bytes(tarball.read_bytes() + b"\0")
    with pytest.raises(BuildError, match=f"its SHA-256 is [0-9a-f]{{64}}, not {package.sha256}; delete it"):
        ready(package, cache=tmp_path)


def test_a_file_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    package = replace(put_tarball(tmp_path), files=("lib/*.jar", "lib/three.jar"))
    with pytest.raises(BuildError, match=r"small-1\.0\.0\.tgz holds no lib/three\.jar"):
        ready(package, cache=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [package.tarball]


def test_without_npm_a_missing_tarball_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = replace(put_tarball(tmp_path), version="1.0.1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"small-1\.0\.1\.tgz is missing and there is no npm"):
        ready(package, cache=tmp_path)


def test_builds_at_once_do_no_harm_to_each_other(tmp_path: Path) -> None:
    package = put_tarball(tmp_path)
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)

    def build() -> None:
        start.wait()
        ready(package, cache=tmp_path)

    builds = [context.Process(target=build) for _ in range(4)]
    for one in builds:
        one.start()
    for one in builds:
        one.join()
    assert [one.exitcode for one in builds] == [0] * 4
    # The tarball and one folder: no partial one is left.
    assert len(list(tmp_path.iterdir())) == 2
    assert len(list((ready(package, cache=tmp_path) / "lib").iterdir())) == 2


def test_a_package_that_is_not_in_the_table_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["kotlin-compiler-1.0"])
    assert f"unknown: kotlin-compiler-1.0; there are {', '.join(PACKAGES)}" in capsys.readouterr().err
