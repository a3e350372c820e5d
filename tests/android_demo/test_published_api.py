"""How members are looked for in type stubs, on a wheel made by hand."""

import zipfile
from pathlib import Path

import pytest

from class_file import ClassFile, Member, Reference
from packages import BuildError
from published_api import PublishedApi
from stubs_check import declared_problems, used_problems

pytestmark = pytest.mark.android

PUBLIC, STATIC = 0x0001, 0x0008
STUBS = {
    "java-stubs/lang/__init__.pyi": """
class Object:
    def __init__(self) -> None: ...
    def hashCode(self) -> int: ...
class Boolean(Object):
    @staticmethod
    def valueOf(b: bool | java.jboolean | Boolean, /) -> bool: ...
""",
    "android-stubs/app/__init__.pyi": """
import typing
_Box__T = typing.TypeVar('_Box__T')
class Base(java.lang.Object):
    def __init__(self, context: android.content.Context, /) -> None: ...
    def shared(self, at: int | java.jlong | java.lang.Long, /) -> str | None: ...
class Box(Base):
    LIMIT: typing.ClassVar[int] = ...
    size: float = ...
    class Inner(java.lang.Object):
        def __init__(self) -> None: ...
        def done(self) -> Box.Inner: ...
    @typing.overload
    def put(self, value: int | java.jint | java.lang.Integer, /) -> None: ...
    @typing.overload
    def put(self, names: java.chaquopy.JavaArray[java.lang.String], /, *more: java.lang.Object) -> bool: ...
    def get(self, kind: typing.Type[_Box__T], /) -> _Box__T: ...
    def bytes(self) -> java.chaquopy.JavaArrayJByte: ...
""",
}


@pytest.fixture
def api(tmp_path: Path) -> PublishedApi:
    with zipfile.ZipFile(tmp_path / "stubs.whl", "w") as archive:
        for name, text in STUBS.items():
            archive.writestr(name, text)
    return PublishedApi(tmp_path / "stubs.whl")


@pytest.mark.parametrize(
    ("name", "descriptor", "static"),
    [
        ("put", "(I)V", False),
        ("put", "([Ljava/lang/String;[Ljava/lang/Object;)Z", False),
        ("shared", "(J)Ljava/lang/String;", False),
        ("get", "(Ljava/lang/Class;)Ljava/lang/Object;", False),
        ("bytes", "()[B", False),
        ("hashCode", "()I", False),
    ],
)
def test_a_published_method(api: PublishedApi, name: str, descriptor: str, static: bool) -> None:
    box = api.find("android/app/Box")
    assert box is not None
    assert api.method_problem(box, name, descriptor, static=static) == ""


@pytest.mark.parametrize(
    ("name", "descriptor", "static", "problem"),
    [
        ("put", "(J)V", False, "published is (int | java.jint"),
        ("put", "(I)I", False, "published is (int | java.jint"),
        ("put", "(I)V", True, "published is (int | java.jint"),
        ("put", "(II)V", False, "published is (int | java.jint"),
        ("put", "([Ljava/lang/Object;[Ljava/lang/Object;)Z", False, "published is"),
        ("put", "([Ljava/lang/String;Ljava/lang/Object;)Z", False, "published is"),
        ("bytes", "()[I", False, "published is () -> java.chaquopy.JavaArrayJByte"),
        ("remove", "()V", False, "no member of that name is published"),
        # A constructor is not inherited.
        ("<init>", "(Landroid/content/Context;)V", False, "no member of that name is published"),
    ],
)
def test_a_method_that_is_not_published(
    api: PublishedApi, name: str, descriptor: str, static: bool, problem: str
) -> None:
    box = api.find("android/app/Box")
    assert box is not None
    assert api.method_problem(box, name, descriptor, static=static).startswith(problem)


def declared(name: str, superclass: str, *methods: Member, fields: tuple[Member, ...] = ()) -> ClassFile:
    return ClassFile(name=name, superclass=superclass, fields=fields, methods=methods, references=())


def test_declarations_are_counted_and_each_wrong_one_is_named(api: PublishedApi) -> None:
    fields = (
        Member("LIMIT", "I", PUBLIC | STATIC),
        Member("size", "F", PUBLIC),
        Member("size", "I", PUBLIC),
        Member("LIMIT", "I", PUBLIC),
    )
    good = declared("android/app/Box", "android/app/Base", Member("put", "(I)V", PUBLIC), fields=fields)
    inner = declared("android/app/Box$Inner", "java/lang/Object", Member("done", "()Landroid/app/Box$Inner;", PUBLIC))
    wrong = declared("android/app/Base", "android/app/Box", Member("hidden", "()V", 0))
    absent = declared("android/app/Absent", "java/lang/Object")
    count, problems = declared_problems([good, inner, wrong, absent], api)
    assert count == 6
    assert problems == [
        "android.app.Box.size I: published it is of type float",
        "android.app.Box.LIMIT I: published it belongs to the class",
        "android.app.Base: it does not inherit from android.app.Box",
        "android.app.Absent: no such class is published",
    ]


def test_what_no_phone_has_is_named_with_its_user(api: PublishedApi) -> None:
    references = (
        Reference("java/lang/Boolean", "valueOf", "(Z)Ljava/lang/Boolean;"),
        Reference("java/lang/Object", "describeConstable", "()Ljava/util/Optional;"),
        Reference("java/lang/invoke/LambdaMetafactory", "metafactory", "()V"),
        Reference("java/net/http/HttpClient", "newHttpClient", "()Ljava/net/http/HttpClient;"),
        Reference("kotlin/Pair", "getFirst", "()Ljava/lang/Object;"),
    )
    user = ClassFile(name="our/Own", superclass="java/lang/Object", fields=(), methods=(), references=references)
    count, problems = used_problems([user], api)
    assert count == 3
    assert problems == [
        "our.Own uses java.lang.Object.describeConstable()Ljava/util/Optional;: no member of that name is published",
        "our.Own uses java.net.http.HttpClient.newHttpClient()Ljava/net/http/HttpClient;: no such class is published",
    ]


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chaquopy_stubs_android-36.20260406-py3-none-any.whl").write_bytes(b"other")
    with pytest.raises(BuildError, match="delete it to fetch it again"):
        PublishedApi.ready(cache=tmp_path)
