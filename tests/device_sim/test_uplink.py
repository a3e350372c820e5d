from dataclasses import replace

import numpy as np
import pytest
import torch
from both_clients import both_clients

from pocketfleet.device_sim.cohort import Cohort
from pocketfleet.device_sim.uplink import Uplink
from pocketfleet.training.codec import Seeds, load_codec, round_seed
from pocketfleet.training.codec.error_feedback import state_with
from pocketfleet.training.draws import draw_key, normal
from pocketfleet.training.task import load_task
from pocketfleet.training.update import Update
from pocketfleet.training.weights import Tensors

SEED = 9
COHORT = Cohort.of_devices([4, 7, 9], batch_seed=[100, 200, 300])
CHAIN = ("rotation+random_k+quantised", {"ratio": 0.5, "bits": 4})


def drawn(count: int, seed: int) -> Tensors:
    values = normal(draw_key(seed, "test_uplink", np.arange(count)), 90).astype(np.float32)
    return {"w": torch.from_numpy(values).reshape(count, 9, 10)}


def updates() -> Update:
    return Update(drawn(3, 1), {"b": torch.arange(3.0).reshape(3, 1)}, {"e": torch.ones(3, 2)})


def test_a_lossless_codec_is_not_asked() -> None:
    found = updates()
    finite = np.array([True, False, True])
    sent, residual, still = Uplink(codec=load_codec("lossless"), seed=SEED).sent(found, COHORT, {}, finite)
    assert sent is found
    assert residual == {}
    assert still is finite


@pytest.mark.parametrize("feedback", [False, True])
def test_each_row_is_what_a_phone_would_send(feedback: bool) -> None:
    codec = load_codec(CHAIN[0], CHAIN[1] | {"error_feedback": feedback})
    before = drawn(3, 2) if feedback else {}
    sent, residual, still = Uplink(codec=codec, seed=SEED).sent(updates(), COHORT, before, np.ones(3, dtype=np.bool_))
    assert still.all()
    assert residual.keys() == before.keys()
    for row in range(3):
        delta = updates().delta["w"][row] + (before["w"][row] if feedback else 0.0)
        one = Update({"w": delta}, {"b": torch.tensor([float(row)])}, {"e": torch.ones(2)})
        shared = round_seed(SEED, 0)
        data = codec.encode(one, Seeds(shared=shared, own=int(COHORT.batch_seed[row])))
        arrived = codec.decode(data, one, shared)
        assert torch.equal(sent.delta["w"][row], arrived.delta["w"])
        assert torch.equal(sent.buffers["b"][row], one.buffers["b"])
        assert torch.equal(sent.extra["e"][row], one.extra["e"])
        if feedback:
            assert torch.equal(residual["w"][row], delta - arrived.delta["w"])
            assert float(residual["w"][row].abs().sum()) > 0.0


def test_devices_of_another_version_draw_from_another_seed() -> None:
    codec = load_codec("random_k", {"ratio": 0.1})
    cohort = replace(COHORT, model_version=np.array([0, 1, 1]))
    sent, _, _ = Uplink(codec=codec, seed=SEED).sent(updates(), cohort, {}, np.ones(3, dtype=np.bool_))
    kept = [set(torch.nonzero(row.flatten()).flatten().tolist()) for row in sent.delta["w"]]
    assert kept[1] == kept[2] != kept[0]
    assert [len(places) for places in kept] == [9, 9, 9]


def test_what_is_not_finite_is_not_encoded_and_changes_nothing() -> None:
    codec = load_codec("quantised", {"bits": 8, "error_feedback": True})
    found, before = updates(), drawn(3, 2)
    found.delta["w"][1, 0, 0] = float("inf")
    # Finite by itself, and not with what was left.
    found.delta["w"][2, 0, 0] = before["w"][2, 0, 0] = 3e38
    finite = np.array([True, False, True])
    _, residual, still = Uplink(codec=codec, seed=SEED).sent(found, COHORT, before, finite)
    assert still.tolist() == [True, False, False]
    assert finite.tolist() == [True, False, True]
    assert torch.equal(residual["w"][1:], before["w"][1:])
    assert not torch.equal(residual["w"][0], before["w"][0])


@pytest.mark.parametrize("which", ["one_by_one", "batched"])
def test_clients_add_up_what_arrives_and_keep_what_does_not(which: str) -> None:
    both = both_clients(load_task("boston"), devices=4, examples_per_device=20)
    client = getattr(both, which)
    cohort = Cohort.of_devices([1, 2], steps=3, batch_seed=[5, 6])
    codec = load_codec("top_k", {"ratio": 0.1, "error_feedback": True})
    residual = {name: torch.full((2, *value.shape), 0.25) for name, value in both.weights.trainable.items()}

    plain = client.train_chunk(cohort, both.weights, {}, {})
    encoding = replace(client, uplink=Uplink(codec=codec, seed=SEED))
    lossy = encoding.train_chunk(cohort, both.weights, {}, state_with({}, residual))
    assert plain.device_state == {}
    assert lossy.device_state.keys() == {f"residual/{name}" for name in residual}
    # delta + residual = what arrived + the next residual, in the mean over the two devices.
    arrived, learnt = lossy.part.result().delta, plain.part.result().delta
    for name, value in arrived.items():
        left = lossy.device_state[f"residual/{name}"].double().mean(dim=0)
        torch.testing.assert_close(value + left, learnt[name] + 0.25, atol=1e-6, rtol=0.0)
    assert (
        0
        < sum(int((value != 0).sum()) for value in arrived.values())
        < 0.25 * sum(value.numel() for value in arrived.values())
    )
