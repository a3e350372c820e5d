"""A sweep's plan: splitting, the grid, names, who shares a bundle."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pocketfleet.device_sim.sweep import (
    Variation,
    bundle_group,
    combinations,
    folder_name,
    parse_variations,
    split_values,
)
from pocketfleet.errors import InputError
from pocketfleet.experiment import Experiment, parsed_settings

KEY = "rounds.over_selection"
VALUES = st.recursive(
    st.integers() | st.booleans() | st.text(alphabet="ab,\"\\[]{}= '#", max_size=6),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return str(value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1.0,1.3,1.6", ("1.0", "1.3", "1.6")),
        (" 1.0 , 1.3", ("1.0", "1.3")),
        ("[1,2],[3]", ("[1,2]", "[3]")),
        ('"a,b",c', ('"a,b"', "c")),
        ("'a,\"b',c", ("'a,\"b'", "c")),
        ('"a\\",b",c', ('"a\\",b"', "c")),
        ('{x = [1, "}"], y = 2}, {x = [2]}', ('{x = [1, "}"], y = 2}', "{x = [2]}")),
        ("home-wifi,lte-2021", ("home-wifi", "lte-2021")),
    ],
)
def test_values_are_split_at_top_level_commas(text: str, values: tuple[str, ...]) -> None:
    assert split_values(text, key=KEY) == values


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_any_values_come_back_as_they_were(values: list[object]) -> None:
    texts = split_values(",".join(toml(value) for value in values), key="a.b")
    assert [parsed_settings([f"a.b={text}"])["a"]["b"] for text in texts] == values


@pytest.mark.parametrize("text", ["", "1.0,,1.3", "1.0,", "[1,2", '"a,b', "{x = 1, y = 2"])
def test_what_cannot_be_split_is_told(text: str) -> None:
    with pytest.raises(InputError, match=r"--vary rounds\.over_selection=.*(empty value|is missing)"):
        split_values(text, key=KEY)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "varies at least one key"),
        (["rounds.count"], "takes KEY=V1,V2"),
        (["=1,2"], "takes KEY=V1,V2"),
        (["rounds.count=1", "rounds.count=2"], "comes twice"),
    ],
)
def test_a_variation_is_a_key_and_values(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_variations(texts)


def test_the_grid_is_every_combination_the_last_key_fastest() -> None:
    found = combinations(parse_variations(["a.x=1,2", "b.y=3,4"]))
    assert found == (
        {"a.x": "1", "b.y": "3"},
        {"a.x": "1", "b.y": "4"},
        {"a.x": "2", "b.y": "3"},
        {"a.x": "2", "b.y": "4"},
    )


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({KEY: "1.3"}, "over_selection=1.3"),
        ({KEY: "1.3", "rounds.deadline_s": "60"}, "over_selection=1.3,deadline_s=60"),
        ({"training.momentum": "0.9", "server.momentum": "0.5"}, "training.momentum=0.9,server.momentum=0.5"),
        ({"fleet.network": "lte-2021"}, "network=lte-2021"),
    ],
)
def test_a_folders_name_says_its_values(values: dict[str, str], name: str) -> None:
    assert folder_name(values) == name


def test_what_a_file_name_cannot_say_gets_a_hash() -> None:
    assert re.fullmatch(
        r"availability=-data-mine\.csv--[0-9a-f]{8}", folder_name({"fleet.availability": '"/data/mine.csv"'})
    )
    # Told apart by capitals alone, these would be one folder on macOS and Windows.
    names = {folder_name({"task.name": name}).casefold() for name in ("a:make", "A:make", "a:Make", "a/make")}
    assert len(names) == 4


@given(st.lists(st.tuples(st.text(max_size=200), st.text(max_size=200)), min_size=2, max_size=6, unique=True))
@example([("1,y=2", "3"), ("1", "2,y=3")])
def test_names_are_safe_and_no_two_are_the_same(pairs: list[tuple[str, str]]) -> None:
    names = [folder_name({"a.x": first, "a.y": second}) for first, second in pairs]
    assert len({name.casefold() for name in names}) == len(pairs)
    for name in names:
        assert re.fullmatch(r"[a-z0-9.,=_+-]{1,120}", name)
        assert not name.startswith(("-", "."))


@pytest.mark.parametrize(
    ("setting", "shared"),
    [
        ("rounds.over_selection=2.0", True),
        ("seed=2", True),
        ("training.learning_rate=0.5", True),
        ("fleet.devices=20", True),
        ("training.batch_size=4", False),
        ("training.momentum=0.5", False),
        ("training.max_norm=1.0", False),
        ("training.lora_rank=2", False),
        ("algorithm.name=fedprox", False),
        ("task.options={hidden = 5}", False),
    ],
)
def test_a_bundle_is_shared_where_no_key_of_it_differs(setting: str, shared: bool) -> None:
    base = Experiment.load("boston-fleet")
    changed = base.with_settings(setting)
    assert (bundle_group(base.model_dump()) == bundle_group(changed.model_dump())) is shared


def test_variations_keep_their_order() -> None:
    assert parse_variations(["b=1, 2", " a = x"]) == (
        Variation(key="b", values=("1", "2")),
        Variation(key="a", values=("x",)),
    )
