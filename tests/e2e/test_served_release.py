"""A poisoned version, served from the command line: phones evaluate it with the exported programs and keep the old."""

import base64
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import torch
from test_serve import CHECK_IN, Serving, serving

from pocketfleet import Bundle, Experiment
from pocketfleet.assembly import adapted_task, device_data
from pocketfleet.device_sim.client import mean_evaluation
from pocketfleet.device_sim.device_data import DeviceData
from pocketfleet.export.session import Session, open_session
from pocketfleet.training.codec import LosslessCodec
from pocketfleet.training.update import Update, tensors_from_bytes

GATE = ("release.gate=evaluation", "release.evaluation_reports=2", "release.canary_ratio=0.0")


class Phone:
    """One of the two; it reports what it is told to, and measures what it downloads."""

    def __init__(
        self, url: str, token: str, *, number: int, session: Session, bundle: Bundle, data: DeviceData
    ) -> None:
        self.url = url
        credential = httpx.post(f"{url}/enrol", json={"token": token}).json()["credential"]
        self.headers = {"Authorization": f"Bearer {credential}"}
        self.number, self.session, self.bundle, self.data = number, session, bundle, data

    def check_in(self) -> dict[str, Any]:
        asked = CHECK_IN | {"evaluates": True}
        found: dict[str, Any] = httpx.post(f"{self.url}/check-in", json=asked, headers=self.headers).json()
        return found

    def given(self, what: str) -> dict[str, Any]:
        """Work of a kind, waited for while a version is being made."""
        until_s = time.monotonic() + 30.0
        while (answer := self.check_in())[what] is None:
            assert answer["turned_away"]["reason"] in {"preparing", "already_reported", "round_full"}, answer
            assert time.monotonic() < until_s
            time.sleep(0.05)  # noqa: TID251 - another process is waited for
        found: dict[str, Any] = answer[what]
        return found

    def train(self, step: float) -> None:
        """Report weights moved by ``step``."""
        work = self.given("assignment")
        weights = self.bundle.weights().trainable
        body = LosslessCodec().encode(Update({name: torch.full_like(one, step) for name, one in weights.items()}, {}))
        digest = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
        answer = httpx.put(
            f"{self.url}/reports/{work['assignment_id']}",
            params={"num_examples": 8, "steps": 1, "examples_held": 10, "train_loss": 1.0},
            content=body,
            headers=self.headers | {"Content-Digest": digest},
        )
        assert answer.status_code == 200, answer.text

    def evaluate(self) -> dict[str, Any]:
        """Measure two versions with the exported program, and report."""
        work = self.given("evaluation")
        held_out = self.data.held_out(self.number)
        report = {"num_held_out": len(held_out)}
        for name in ("tried", "released"):
            url = f"{self.url}/files/{work[name]['weights']['sha256']}"
            trainable = tensors_from_bytes(httpx.get(url, headers=self.headers).content)
            weights = replace(self.bundle.weights(), trainable=trainable)
            report[name] = mean_evaluation(self.session, weights, held_out, batch_size=work["batch_size"])[
                work["metric"]
            ]
        url = f"{self.url}/evaluations/{work['evaluation_id']}"
        answer = httpx.put(url, json=report, headers=self.headers)
        assert (answer.status_code, answer.json()["code"]) == (200, "counted"), answer.text
        return report


def phones(one: Serving, pocketfleet, bundle: Bundle) -> list[Phone]:
    experiment = Experiment.load("boston-two-phones")
    data = device_data(experiment, adapted_task(experiment))
    session = open_session(bundle, "onnx")
    tokens = pocketfleet("admin", "token", "--count", "2", "--state", one.state).out.split()
    return [
        Phone(one.url, token, number=number, session=session, bundle=bundle, data=data)
        for number, token in enumerate(tokens)
    ]


def test_a_poisoned_version_reaches_no_phone_and_a_roll_back_reaches_all(
    tmp_path: Path, boston_bundle: Bundle, pocketfleet
) -> None:
    settings = [part for one in (f"task.bundle='{boston_bundle.path}'", *GATE) for part in ("--set", one)]
    with serving(tmp_path, *settings) as one:
        both = phones(one, pocketfleet, boston_bundle)
        # A step that helps: the untrained model predicts too little of every price.
        for phone in both:
            phone.train(0.05)
        reports = [phone.evaluate() for phone in both]
        assert all(report["tried"] < report["released"] for report in reports)
        assert [phone.check_in()["released"]["version"] for phone in both] == [1, 1]
        # One phone reports an update of finite numbers that ruins the mean.
        for phone, step in zip(both, (0.0, 1e3), strict=True):
            phone.train(step)
        reports = [phone.evaluate() for phone in both]
        assert all(report["tried"] > report["released"] for report in reports)
        assert [phone.check_in()["released"]["version"] for phone in both] == [1, 1]
        assert "version 0 from their next check-in" in pocketfleet("admin", "roll-back", "0", "--state", one.state).out
        # The service looks every second.
        until_s = time.monotonic() + 30.0
        while both[0].check_in()["released"]["version"] != 0:
            assert time.monotonic() < until_s
            time.sleep(0.1)  # noqa: TID251 - another process is waited for
        assert both[1].check_in()["released"]["version"] == 0
        listed = json.loads(pocketfleet("list", "models", "--state", one.state, "--json").out)
        assert [(row["state"], row["in_use"]) for row in listed] == [
            ("released", True),
            ("rolled_back", False),
            ("held_back", False),
        ]
        assert pocketfleet("admin", "unpin", "--state", one.state).code == 0
        assert one.stop()[0] == 0
