"""The app's round loop beside emulated devices, at one real service: the same updates, and the very model of them."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_client import started_client
from lived_rounds import body, experiment, process, rows, simulated, wait_for, write_examples

from pocketfleet import Bundle
from pocketfleet.serving_file import read_serving
from pocketfleet.training.server.administration import issue_tokens
from pocketfleet.training.server.blob_folder import BlobFolder
from pocketfleet.training.server.database import DEVICES as ENROLLED
from pocketfleet.training.server.database import MODELS, REPORTS
from pocketfleet.training.update import tensors_from_bytes
from pocketfleet.training.weights import Tensors, Weights, tensors_sha256

pytestmark = pytest.mark.android

ROUNDS, DEVICES = 5, 4
# The first device is the app's, the others are emulated.
KOTLIN = 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of five rounds that were lived through."""
    place = tmp_path_factory.mktemp("same-round")
    state, log = place / "state", place / "serve.log"
    (place / "experiment.toml").write_text(experiment(rounds=ROUNDS, devices=DEVICES).to_toml())
    with ExitStack() as stack:
        served = ["serve", str(place / "experiment.toml"), "--state", str(state), "--port", "0"]
        stack.enter_context(process(log, *served))
        url = wait_for("the service", log, lambda: read_serving(state)).url
        devices = []
        for device in range(DEVICES):
            examples = place / f"{device}.csv"
            write_examples(examples, device)
            (token,) = issue_tokens(state)
            own = place / f"{device}.log"
            if device == KOTLIN:
                given = [url, token, str(examples), str(place / "kotlin"), str(ROUNDS)]
                devices.append((own, stack.enter_context(started_client(own, *given))))
            else:
                # Boston's whole training takes a phone a second; its rounds are not what is looked at.
                given = ["--token", token, "--data", str(examples), "--state", str(place / f"device-{device}")]
                given += ["--runtime", "executorch", "--speed", "20", "--availability", "always"]
                joined = process(own, "join", url, *given, "--rounds", str(ROUNDS))
                devices.append((own, stack.enter_context(joined)))
            # Devices are numbered in the order in which they enrol.
            wait_for(f"device {device}", own, lambda device=device: len(rows(state, ENROLLED)) > device)
        for own, running in devices:
            assert wait_for("the end", own, lambda running=running: running.poll() is not None)
            assert running.returncode == 0, own.read_text()
    return place


def reported(state: Path, report: Any) -> Tensors:  # noqa: ANN401
    return tensors_from_bytes(body(state, report))


def version(state: Path, model: Any, bundle: Bundle) -> Weights:  # noqa: ANN401
    first = bundle.weights()
    found = tensors_from_bytes(BlobFolder(state / "files").path(model.weights_sha256).read_bytes())
    return Weights(
        trainable={name: found[name] for name in first.trainable},
        buffers={name: found[name] for name in first.buffers},
        frozen=first.frozen,
    )


def test_every_report_is_the_simulators_update(place: Path) -> None:
    state = place / "state"
    bundle = Bundle.load(state / "bundle")
    models = rows(state, MODELS, MODELS.c.version)
    reports = rows(state, REPORTS, REPORTS.c.counted_in, REPORTS.c.device)
    assert [(one.counted_in, one.device) for one in reports] == [
        (round_, device) for round_ in range(ROUNDS) for device in range(DEVICES)
    ]
    errors: dict[bool, list[float]] = {True: [], False: []}
    for one in reports:
        weights = version(state, models[one.counted_in], bundle)
        examples = place / f"{one.device}.csv"
        expected = simulated(bundle, weights, examples, round_=one.counted_in, device=one.device).delta
        found = reported(state, one)
        difference = torch.cat([(found[name] - expected[name]).flatten() for name in expected])
        whole = torch.cat([value.flatten() for value in expected.values()])
        errors[one.device == KOTLIN].append(float(difference.norm() / whole.norm()))
    for of_kotlin, found_errors in errors.items():
        print(
            f"{'app' if of_kotlin else 'emulated'}: median {np.median(found_errors):.1e}, most {max(found_errors):.1e}"
        )
        assert max(found_errors) < 1e-3
        assert np.median(found_errors) < 1e-5


def test_each_model_is_the_reports_aggregate_to_the_bit(place: Path) -> None:
    state = place / "state"
    bundle = Bundle.load(state / "bundle")
    models = rows(state, MODELS, MODELS.c.version)
    reports = rows(state, REPORTS, REPORTS.c.counted_in, REPORTS.c.device)
    for round_ in range(ROUNDS):
        before = version(state, models[round_], bundle)
        of_round = [one for one in reports if one.counted_in == round_]
        shares = torch.tensor([one.num_examples for one in of_round], dtype=torch.float64)
        updates = [reported(state, one) for one in of_round]
        after = {}
        for name, value in before.trainable.items():
            deltas = torch.stack([update[name].flatten() for update in updates]).to(torch.float64)
            mean = ((shares @ deltas) / shares.sum()).reshape(value.shape)
            after[name] = (value.to(torch.float64) + mean).to(torch.float32)
        assert tensors_sha256(after) == models[round_ + 1].model_sha256
