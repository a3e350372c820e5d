from dataclasses import replace

import numpy as np
import pytest
import torch
from both_clients import both_clients, distances
from torch import nn
from torch.nn import functional as F

from pocketfleet.device_sim.attack import Attack, Attackers, AttackKind, num_classes
from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.errors import InputError
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.examples import Examples
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

FLIP = Attack(kind=AttackKind.SIGN_FLIP, devices=(0,), scale=4.0)
SCALED = Attack(kind=AttackKind.SCALED, devices=(1,), scale=10.0)
LABEL = Attack(kind=AttackKind.LABEL_FLIP, devices=(2,))
NAN = Attack(kind=AttackKind.NAN, devices=(3,))
# Device 4 is honest.
ALL = Attackers([FLIP, SCALED, LABEL, NAN], devices=5, seed=1, classes=10)


def stacked(count: int) -> Update:
    delta = torch.arange(1.0, 2 * count + 1).reshape(count, 2, 1)
    return Update({"w": delta, "b": delta[:, 0] / 3}, {"mean": torch.ones(count, 2)}, {"w": delta + 7})


def test_each_kind_does_to_a_delta_what_it_says() -> None:
    updates, before = stacked(5), stacked(5)
    reported = ALL.reported(updates, np.arange(5))
    for name, value in updates.delta.items():
        got = reported.delta[name]
        assert torch.equal(got[0], -4 * value[0])
        assert torch.equal(got[1], 10 * value[1])
        assert torch.equal(got[2], value[2])
        assert bool(got[3].isnan().all())
        assert torch.equal(got[4], value[4])
        assert got.dtype == value.dtype == torch.float32
        assert torch.equal(value, before.delta[name])
    for group in ("buffers", "extra"):
        honest, told = updates.groups()[group], reported.groups()[group]
        assert honest.keys() == told.keys() != set()
        assert all(torch.equal(told[name], value) for name, value in honest.items())


def test_a_device_attacks_alike_alone_and_among_others() -> None:
    together = ALL.reported(stacked(5), np.arange(5))
    for device in range(5):
        alone = Update({name: value[device : device + 1] for name, value in stacked(5).delta.items()}, {})
        reported = ALL.reported(alone, np.array([device]))
        for name, value in reported.delta.items():
            torch.testing.assert_close(value[0], together.delta[name][device], rtol=0, atol=0, equal_nan=True)


def test_honest_updates_are_handed_on_as_they_are() -> None:
    updates = stacked(1)
    assert ALL.reported(updates, np.array([4])) is updates
    assert Attackers([], devices=3, seed=1).reported(updates, np.array([2])) is updates


def test_flipped_labels_are_mirrored() -> None:
    y = torch.tensor([[0, 1, 9, -100], [0, 1, 9, -100]])
    trained = ALL.targets(y, np.array([2, 4]))
    # 9 - y; -100 stands for no target.
    assert trained.tolist() == [[9, 8, 0, -100], [0, 1, 9, -100]]
    assert trained.dtype == torch.int64
    assert y.tolist()[0] == [0, 1, 9, -100]
    assert ALL.targets(y, np.array([0, 4])) is y


def test_one_devices_examples_are_flipped_alike() -> None:
    examples = Examples(torch.ones(3, 2), torch.tensor([0, 4, -100]))
    assert ALL.examples(examples, 2).y.tolist() == [9, 5, -100]
    assert ALL.examples(examples, 4).y.tolist() == [0, 4, -100]
    assert ALL.examples(examples, 2).x is examples.x


def test_labels_of_one_device_may_be_one_column() -> None:
    assert ALL.targets(torch.tensor([3, 3]), np.array([2, 0])).tolist() == [6, 3]


def test_the_words_say_what_each_device_does() -> None:
    assert ALL.word.tolist() == ["sign_flip", "scaled", "label_flip", "nan", ""]
    assert Attackers([], devices=2, seed=1).word.tolist() == ["", ""]


def test_shares_are_drawn() -> None:
    attacks = [Attack(kind=AttackKind.SIGN_FLIP, ratio=0.2), Attack(kind=AttackKind.NAN, ratio=0.05)]
    words = Attackers(attacks, devices=20_000, seed=7).word
    # Binomial, 20,000 draws: standard deviations of 57 and 31; five of them.
    assert abs((words == "sign_flip").sum() - 4000) < 285
    assert abs((words == "nan").sum() - 1000) < 155


def test_one_more_device_changes_nobodys_part_and_a_seed_everybodys() -> None:
    attacks = [Attack(kind=AttackKind.SIGN_FLIP, ratio=0.3)]
    words = Attackers(attacks, devices=100, seed=1).word
    assert np.array_equal(words, Attackers(attacks, devices=101, seed=1).word[:100])
    assert not np.array_equal(words, Attackers(attacks, devices=100, seed=2).word)


def test_a_named_device_is_not_drawn_by_another_attack() -> None:
    attacks = [Attack(kind=AttackKind.NAN, devices=(0, 5)), Attack(kind=AttackKind.SIGN_FLIP, ratio=1.0)]
    words = Attackers(attacks, devices=6, seed=1).word
    assert words.tolist() == ["nan", *["sign_flip"] * 4, "nan"]


def test_all_of_a_share_of_one_attack() -> None:
    assert set(Attackers([Attack(kind=AttackKind.NAN, ratio=1.0)], devices=500, seed=3).word) == {"nan"}


def test_classes_are_counted_from_the_highest_target() -> None:
    assert num_classes(torch.tensor([3, -100, 9]), task="mnist") == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_targets_without_classes_cannot_be_flipped(dtype: torch.dtype) -> None:
    with pytest.raises(
        InputError, match=r"label_flip needs targets that are classes .* 'boston' are .*: choose a task"
    ):
        num_classes(torch.zeros(3, dtype=dtype), task="boston")


class Thirds:
    """Which of three coordinates is the largest; a linear model."""

    name = "thirds"

    def make_model(self) -> nn.Module:
        return nn.Linear(3, 3)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output, target, reduction="none")

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Tensors:
        return {"accuracy": (output.argmax(dim=-1) == target).to(output.dtype)}

    def train_examples(self) -> Examples:
        x = torch.from_numpy(normal(draw_key(1, "thirds", np.arange(100)), 3)).to(torch.float32)
        return Examples(x, x.argmax(dim=1))

    def test_examples(self) -> Examples:
        return self.train_examples()


class Kept:
    """An aggregator that hands back what it was given."""

    def __init__(self) -> None:
        self.num_updates = 0

    def add_many(self, updates: Update, *, weight: np.ndarray, scale: np.ndarray) -> None:  # noqa: ARG002
        self.updates, self.weight = updates, weight


def test_one_by_one_or_many_at_once_attackers_report_the_same() -> None:
    both = both_clients(Thirds(), devices=5, float64=True)
    attackers = Attackers([FLIP, SCALED, LABEL, NAN], devices=5, seed=1, classes=3)
    cohort = Cohort.of_devices(range(5), steps=4, batch_seed=range(5))
    reported, honest = [], []
    for client in (both.one_by_one, both.batched):
        for found, attack in ((reported, attackers), (honest, None)):
            told = replace(client, make_aggregator=Kept, attackers=attack)
            found.append(told.train_chunk(cohort, both.weights, {}, {}))
    for result in reported:
        assert result.finite.tolist() == [True, True, True, False, True]
        assert result.part.weight.tolist() == [1.0, 1.0, 1.0, 0.0, 1.0]
        # A device's own model is measured on its true labels, whatever it trained on.
        assert result.num_held_out.tolist() == honest[0].num_held_out.tolist()
    finite = torch.tensor([0, 1, 2, 4])
    one, many = ({name: value[finite] for name, value in result.part.updates.delta.items()} for result in reported)
    assert distances(many, one).max() < 1e-9
    for result, plain in zip(reported, honest, strict=True):
        for name, value in plain.part.updates.delta.items():
            got = result.part.updates.delta[name]
            for device, factor in ((0, -4), (1, 10), (4, 1)):
                assert torch.equal(got[device], factor * value[device])
            # Device 2 learnt something else.
            assert not torch.allclose(got[2], value[2])
            assert torch.equal(result.own_model[name][[0, 1, 3, 4]], plain.own_model[name][[0, 1, 3, 4]])
