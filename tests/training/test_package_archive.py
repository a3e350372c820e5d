import hashlib
from pathlib import Path

import pytest

from pocketfleet.errors import InputError
from pocketfleet.training.package_archive import PackageArchive, cache_folder

CONTENT = b"the archive's bytes"
ARCHIVE = PackageArchive(package="made-up", file="made-up-1.0.tar.gz", sha256=hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index in a folder, as pip is configured for it, that serves the archive; an empty cache."""
    page = tmp_path / "simple" / "made-up"
    page.mkdir(parents=True)
    (page / "made-up-1.0.tar.gz").write_bytes(CONTENT)
    (page / "index.html").write_text('<html><body><a href="made-up-1.0.tar.gz">made-up-1.0.tar.gz</a></body></html>')
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return page


def test_it_is_fetched_from_the_index_that_pip_is_set_to_and_kept(index: Path, tmp_path: Path) -> None:
    assert ARCHIVE.content() == CONTENT
    kept = tmp_path / "cache" / "pocketfleet" / "made-up-1.0.tar.gz"
    assert kept.read_bytes() == CONTENT
    # From then on the index is not asked.
    (index / "index.html").unlink()
    assert ARCHIVE.content() == CONTENT


def test_another_file_under_that_name(index: Path, tmp_path: Path) -> None:
    (index / "made-up-1.0.tar.gz").write_bytes(b"other bytes")
    with pytest.raises(InputError, match=r"^what the package index gives as made-up-1.0.tar.gz is not .*SHA-256"):
        ARCHIVE.content()
    assert not (tmp_path / "cache").exists()


def test_a_damaged_copy_in_the_cache(index: Path, tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "pocketfleet" / "made-up-1.0.tar.gz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match=r"delete it to have it fetched anew\) is not the made-up-1.0.tar.gz"):
        ARCHIVE.content()


def test_where_nothing_can_be_fetched_a_path_is_the_way_out(index: Path, tmp_path: Path) -> None:
    (index / "index.html").write_text("<html><body></body></html>")
    with pytest.raises(
        InputError, match=r"^pip cannot say where made-up-1.0.tar.gz lies .*set task.options.path to it"
    ):
        ARCHIVE.content()
    copy = tmp_path / "downloaded"
    copy.write_bytes(CONTENT)
    assert ARCHIVE.content(str(copy)) == CONTENT
    with pytest.raises(InputError, match=r"cannot read .*nowhere"):
        ARCHIVE.content(str(tmp_path / "nowhere"))


def test_a_link_that_leads_nowhere(index: Path) -> None:
    (index / "made-up-1.0.tar.gz").unlink()
    with pytest.raises(InputError, match=r"^made-up-1.0.tar.gz could not be fetched: .*; download made-up-1.0.tar.gz"):
        ARCHIVE.content()


def test_a_cache_that_cannot_be_written(index: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"^cannot keep made-up-1.0.tar.gz in .*; set XDG_CACHE_HOME$"):
        ARCHIVE.content()


def test_the_cache_is_below_xdg_cache_home_unless_that_is_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/pocketfleet")
    for given in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache_folder() == Path.home() / ".cache" / "pocketfleet"
