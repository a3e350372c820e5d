"""The app's round loop at a real service, reports and versions of few bytes: they say what the simulator's would."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from host_client import started_client
from lived_rounds import batch_seed, body, experiment, process, rows, simulated, wait_for, write_examples

from pocketfleet import Bundle
from pocketfleet.serving_file import read_serving
from pocketfleet.training.codec import DownloadCodec, Seeds, load_codec, round_seed
from pocketfleet.training.codec.error_feedback import compensated, first_residual, residual_after
from pocketfleet.training.codec.packing import unpacked
from pocketfleet.training.server.administration import issue_tokens
from pocketfleet.training.server.blob_folder import BlobFolder
from pocketfleet.training.server.database import MODELS, REPORTS
from pocketfleet.training.update import Update, tensors_from_bytes
from pocketfleet.training.weights import Tensors, tensors_sha256

pytestmark = pytest.mark.android

ROUNDS, SEED, BITS, DOWNLOAD_BITS = 4, 3, 4, 8
NAME, OPTIONS = "rotation+random_k+quantised", {"bits": BITS, "ratio": 0.25, "error_feedback": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of rounds that one device lived through."""
    place = tmp_path_factory.mktemp("lossy-rounds")
    state, log, own, examples = place / "state", place / "serve.log", place / "own.log", place / "0.csv"
    codec = {"name": NAME, **OPTIONS, "download_bits": DOWNLOAD_BITS}
    (place / "experiment.toml").write_text(experiment(rounds=ROUNDS, devices=1, codec=codec).to_toml())
    write_examples(examples, 0)
    with ExitStack() as stack:
        served = ["serve", str(place / "experiment.toml"), "--state", str(state), "--port", "0"]
        stack.enter_context(process(log, *served))
        url = wait_for("the service", log, lambda: read_serving(state)).url
        (token,) = issue_tokens(state)
        given = [url, token, str(examples), str(place / "kotlin"), str(ROUNDS)]
        running = stack.enter_context(started_client(own, *given))
        wait_for("the end", own, lambda: running.poll() is not None)
        assert running.returncode == 0, own.read_text()
    return place


def codes(data: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and steps of a report."""
    tensors = tensors_from_bytes(data)
    packed = tensors["delta/codes"].numpy()
    found = unpacked(packed, bits=BITS, count=len(packed) * 8 // BITS)
    return torch.from_numpy(found.astype("int64")), tensors["delta/steps"]


def norm(tensors: Tensors) -> float:
    return float(torch.cat([value.flatten() for value in tensors.values()]).norm())


def test_every_report_says_what_the_simulators_would(place: Path) -> None:
    state = place / "state"
    bundle = Bundle.load(state / "bundle")
    first = bundle.weights()
    codec = load_codec(NAME, OPTIONS)
    download = DownloadCodec(frozenset(first.trainable | first.buffers), bits=DOWNLOAD_BITS)
    models = rows(state, MODELS, MODELS.c.version)
    reports = rows(state, REPORTS, REPORTS.c.counted_in)
    assert [(one.counted_in, one.device) for one in reports] == [(round_, 0) for round_ in range(ROUNDS)]
    residual: Tensors = {}
    same, said = 0, 0
    for round_, one in enumerate(reports):
        version = BlobFolder(state / "files").path(models[round_].download_sha256).read_bytes()
        weights = download.decode(version, first)
        # Versions are rounded: fewer bytes than a float a weight.
        assert len(version) < 2 * sum(value.numel() for value in first.trainable.values())
        update = simulated(bundle, weights, place / "0.csv", round_=round_, device=0)
        wanted = compensated(update, residual or first_residual(codec, update))
        seeds = Seeds(shared=round_seed(SEED, round_), own=batch_seed(round_=round_, device=0))
        data = body(state, one)
        (found, steps), (expected, expected_steps) = codes(data), codes(codec.encode(wanted, seeds))
        # A delta that differs in its last bits moves a value over the middle between two levels now and then.
        torch.testing.assert_close(steps, expected_steps, rtol=1e-4, atol=0.0)
        assert int((found - expected).abs().max()) <= 1
        same += int((found == expected).sum())
        said += len(found)
        # What the app did say is what it need not say again.
        residual = residual_after(wanted, codec.decode(data, update, seeds.shared))
    print(f"{said - same} of {said} codes differ")
    assert same >= 0.98 * said
    kept = tensors_from_bytes((place / "kotlin" / "residual.safetensors").read_bytes())
    difference = {name: value - residual[name] for name, value in kept.items()}
    print(f"residual differs by {norm(difference) / norm(residual):.1e}")
    assert kept.keys() == residual.keys()
    assert norm(difference) < 1e-3 * norm(residual)


def test_each_model_is_the_one_before_and_what_the_report_says(place: Path) -> None:
    state = place / "state"
    first = Bundle.load(state / "bundle").weights()
    codec, like = load_codec(NAME, OPTIONS), Update(dict(first.trainable), dict(first.buffers))
    models = rows(state, MODELS, MODELS.c.version)
    reports = rows(state, REPORTS, REPORTS.c.counted_in)
    assert len(models) == ROUNDS + 1
    for round_, one in enumerate(reports):
        kept = tensors_from_bytes(BlobFolder(state / "files").path(models[round_].weights_sha256).read_bytes())
        said = codec.decode(body(state, one), like, round_seed(SEED, round_)).delta
        after = {name: (kept[name].double() + said[name].double()).float() for name in first.trainable}
        assert tensors_sha256(after) == models[round_ + 1].model_sha256
        assert norm(said) > 0.0
