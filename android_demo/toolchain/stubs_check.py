"""Holds the build to Android's published API: what we declare of it, and what our classes use of Java's.

1. Every public and protected member of ``platform.jar`` is published, with its parameters and its result, and what it
   belongs to (the class or an object). A superclass is one that the published class inherits from.
2. Every member of ``java.*``, ``javax.*`` and ``org.json`` that our own classes refer to is published: a desktop's JDK
   has many that no phone has.

Run as a script it compiles what is missing, checks both, and prints what is not published; the exit status is 1 then.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from class_file import ClassFile, classes_of
from compile import compiled, locked
from packages import BuildError
from published_api import PublishedApi

__all__ = ["declared_problems", "used_problems"]

# Calls of these are taken apart by D8: no phone sees them.
_DESUGARED: Final = {"java/lang/invoke/LambdaMetafactory", "java/lang/invoke/StringConcatFactory"}
_CHECKED: Final = ("java/", "javax/", "org/json/")
# What goes to the phone of our own code.
OWN_MODULES: Final = ("core", "trainer", "loader", "app")


def declared_problems(classes: Iterable[ClassFile], api: PublishedApi) -> tuple[int, list[str]]:
    """How many members were looked at, and a line for each that is not published; see rule 1."""
    count, problems = 0, []
    for one in classes:
        published = api.find(one.name)
        if published is None:
            problems.append(f"{_dotted(one.name)}: no such class is published")
            continue
        above = {ancestor.name for ancestor in api.lineage(published)}
        if _dotted(one.superclass) not in above:
            problems.append(f"{_dotted(one.name)}: it does not inherit from {_dotted(one.superclass)}")
        for member in one.methods:
            if member.is_visible:
                count += 1
                problem = api.method_problem(published, member.name, member.descriptor, static=member.is_static)
                if problem:
                    problems.append(f"{_dotted(one.name)}.{member.name}{member.descriptor}: {problem}")
        for member in one.fields:
            if member.is_visible:
                count += 1
                problem = api.field_problem(published, member.name, member.descriptor, static=member.is_static)
                if problem:
                    problems.append(f"{_dotted(one.name)}.{member.name} {member.descriptor}: {problem}")
    return count, problems


def used_problems(classes: Iterable[ClassFile], api: PublishedApi) -> tuple[int, list[str]]:
    """How many references were looked at, and a line for each that no phone has; see rule 2."""
    seen: dict[tuple[str, str, str], str] = {}
    for one in classes:
        for reference in one.references:
            if reference.owner.startswith(_CHECKED) and reference.owner not in _DESUGARED:
                seen.setdefault((reference.owner, reference.name, reference.descriptor), one.name)
    problems = []
    for (owner, name, descriptor), user in sorted(seen.items()):
        published = api.find(owner)
        if published is None:
            problem = "no such class is published"
        elif descriptor.startswith("("):
            problem = api.method_problem(published, name, descriptor, static=None)
        else:
            problem = api.field_problem(published, name, descriptor, static=None)
        if problem:
            problems.append(f"{_dotted(user)} uses {_dotted(owner)}.{name}{descriptor}: {problem}")
    return len(seen), problems


def _dotted(name: str) -> str:
    return name.replace("/", ".").replace("$", ".")


def check(*, own: Iterable[Path], platform: Path) -> list[str]:
    """Both checks; prints how much was looked at, and returns what is not published."""
    api = PublishedApi.ready()
    declared, problems = declared_problems(classes_of(platform), api)
    used, more = used_problems((one for jar in own for one in classes_of(jar)), api)
    print(
        f"stubs_check: {declared} declared members and {used} uses of Java looked at, {len(problems) + len(more)} wrong"
    )
    return [*problems, *more]


def main() -> int:
    """Check what is built."""
    try:
        with locked():
            problems = check(platform=compiled("platform"), own=[compiled(name) for name in OWN_MODULES])
    except BuildError as exc:
        print(f"stubs_check: {exc}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"stubs_check: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
