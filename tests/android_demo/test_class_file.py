"""What is read out of class files, against a class that javac just made."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from class_file import Reference, classes_of, parameters, read_class

pytestmark = pytest.mark.android

SOURCE = """
package a;
public class One extends java.util.ArrayList<String> {
    public static final long COUNT = 7L;
    protected double ratio;
    private int hidden;
    public static String text(int[] values, String... more) { return "\\u00e9" + values.length; }
    protected void wait(long nanos, boolean really) { System.out.println(hidden); }
    void own() {}
    public static class Inner {}
}
"""


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    (folder / "One.java").write_text(SOURCE, encoding="utf-8")
    command = ["javac", "--release", "11", "-encoding", "utf-8", "-d", str(folder / "out"), str(folder / "One.java")]
    subprocess.run(command, check=True)
    path = folder / "one.jar"
    with zipfile.ZipFile(path, "w") as archive:
        for file in (folder / "out").rglob("*.class"):
            archive.write(file, file.relative_to(folder / "out").as_posix())
    return path


def test_what_other_classes_see(jar: Path) -> None:
    inner, one = classes_of(jar)
    assert (one.name, one.superclass) == ("a/One", "java/util/ArrayList")
    assert inner.name == "a/One$Inner"
    seen = {(member.name, member.descriptor, member.is_static) for member in one.methods if member.is_visible}
    assert seen == {
        ("<init>", "()V", False),
        ("text", "([I[Ljava/lang/String;)Ljava/lang/String;", True),
        ("wait", "(JZ)V", False),
    }
    assert {member.name for member in one.fields if member.is_visible} == {"COUNT", "ratio"}


def test_what_it_uses_of_others(jar: Path) -> None:
    _, one = classes_of(jar)
    assert Reference("java/lang/System", "out", "Ljava/io/PrintStream;") in one.references
    assert Reference("java/io/PrintStream", "println", "(I)V") in one.references
    assert not [reference for reference in one.references if reference.owner == "a/One"]


def test_what_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="no class file"):
        read_class(b"PK\x03\x04" + bytes(20))


def test_a_descriptor_taken_apart() -> None:
    assert parameters("(I[[J[La/B;La/C;Z)[D") == (("I", "[[J", "[La/B;", "La/C;", "Z"), "[D")
    assert parameters("()V") == ((), "V")
