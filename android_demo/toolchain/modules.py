"""The app's modules: where their sources lie, and what each is compiled against. Arrows point one way.

==========  =========================================  ==============================================
module      holds                                      is compiled against
==========  =========================================  ==============================================
platform    our declarations of ``android.*``          the JDK
loader      four classes that load native libraries    the JDK
core        protocol, files, rules, the round loop     libraries
trainer     a bundle's programs on ExecuTorch          core, loader
host        a client for a desktop's JVM               core, trainer, loader
resources   ``R``, generated from the app's resources  the JDK
app         the app                                    core, trainer, loader, platform, resources
==========  =========================================  ==============================================
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ANDROID_DEMO", "BUILD", "MODULES", "REPOSITORY", "Module", "with_dependencies"]

ANDROID_DEMO: Final = Path(__file__).resolve().parents[1]
REPOSITORY: Final = ANDROID_DEMO.parent
# Not in version control, as all of ``build``.
BUILD: Final = REPOSITORY / "build" / "android"


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One jar.

    Attributes:
        name: of the jar, without its suffix.
        sources: the folder of its Kotlin or Java sources.
        tests: the folder of its JUnit tests; none where it has no tests of its own.
        depends: on other modules, all of them, by name.
        libraries: of ``libraries.py``, by name.
        generated: whether the sources are made by the build itself.
    """

    name: str
    sources: Path
    tests: Path | None = None
    depends: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    generated: bool = False


_KOTLIN: Final = ("kotlin-stdlib", "annotations", "coroutines", "json")
_EXECUTORCH: Final = ("executorch", "fbjni")


def _kotlin(name: str, depends: tuple[str, ...], libraries: tuple[str, ...] = (), *, tested: bool = True) -> Module:
    folder = ANDROID_DEMO / name / "src"
    return Module(
        name=name,
        sources=folder / "main" / "kotlin",
        tests=folder / "test" / "kotlin" if tested else None,
        depends=depends,
        libraries=(*_KOTLIN, *libraries),
    )


_ALL: Final = (
    Module(name="platform", sources=ANDROID_DEMO / "platform" / "src" / "java"),
    Module(name="loader", sources=ANDROID_DEMO / "loader" / "src" / "java"),
    _kotlin("core", ()),
    _kotlin("trainer", ("core", "loader"), _EXECUTORCH),
    _kotlin("host", ("core", "trainer", "loader"), _EXECUTORCH, tested=False),
    Module(name="resources", sources=BUILD / "resources" / "java", generated=True),
    _kotlin("app", ("core", "trainer", "loader", "platform", "resources"), _EXECUTORCH),
)
# By name; a module comes after those that it depends on.
MODULES: Final = {module.name: module for module in _ALL}


def with_dependencies(name: str) -> tuple[Module, ...]:
    """The module ``name`` and all that it depends on, each after its own dependencies."""
    wanted = {name, *MODULES[name].depends}
    return tuple(module for module in MODULES.values() if module.name in wanted)
