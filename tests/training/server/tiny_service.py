"""A service of a model of three numbers, and devices that say what they learnt: everything but training is real."""

import asyncio
import base64
import dataclasses
import hashlib
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from pocketfleet.training.aggregation import MeanAggregator
from pocketfleet.training.algorithms.fedavg import FedAvg
from pocketfleet.training.codec import DownloadCodec, LosslessCodec
from pocketfleet.training.round import Int64s, RoundPlan
from pocketfleet.training.server.administration import issue_tokens
from pocketfleet.training.server.app import make_app
from pocketfleet.training.server.protocol import Rule
from pocketfleet.training.server.service import Service
from pocketfleet.training.server.service_log import ServiceLog
from pocketfleet.training.server.service_plan import Limits, ServicePlan
from pocketfleet.training.server_optimizer import ServerSgd
from pocketfleet.training.update import Update, tensors_from_bytes, tensors_to_bytes
from pocketfleet.training.weights import Weights

__all__ = ["BASE", "Phone", "Running", "digest", "running", "tiny_plan", "update_bytes"]

BASE = "/v1/populations/tiny"
CHECK_IN = {"protocol": 1, "programs": {"onnx": "1.31.0"}, "codecs": ["lossless"], "app_version": "7"}


def in_order(device: Int64s, steps: Int64s, examples_held: Int64s, model_version: Int64s) -> Iterator[Int64s]:
    yield np.arange(len(device))


def tiny_plan(folder: Path, *, size: int = 3, limits: Limits | None = None, **changed: object) -> ServicePlan:
    """Rounds of two reports; devices may ask as often as they like."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "train_step.onnx"
    program.write_bytes(b"a program")
    weights = Weights(trainable={"w": torch.zeros(size)}, buffers={"b": torch.zeros(1)}, frozen={})
    plan = ServicePlan(
        population="tiny",
        fingerprint="of the tests",
        seed=7,
        count=1000,
        rounds=RoundPlan(cohort=2, over_selection=1.5, minimum_ratio=0.5, deadline_s=600.0),
        weights=weights,
        algorithm=FedAvg(server_optimizer=ServerSgd()),
        algorithm_name="fedavg",
        algorithm_options={},
        make_aggregator=MeanAggregator,
        chunks=in_order,
        staleness_exponent=0.0,
        codec=LosslessCodec(),
        report=Update({"w": torch.zeros(size)}, {"b": torch.zeros(1)}),
        download=DownloadCodec(frozenset({"w", "b"})),
        programs={"onnx": {"train_step.onnx": program}},
        preferred_program="executorch",
        hyper={"learning_rate": 0.1},
        epochs=1,
        steps=0,
        batch_size=8,
        partial_work="report",
        rule=Rule(idle=True, charging=True, unmetered=True, min_battery_ratio=0.3, min_examples=1),
        limits=limits or Limits(device_requests_per_s=0.0, longest_retry_s=0.05, max_devices=1000),
    )
    return dataclasses.replace(plan, **changed)


def update_bytes(*values: float, buffer: float = 0.0) -> bytes:
    """A report's body."""
    return LosslessCodec().encode(Update({"w": torch.tensor(values)}, {"b": torch.tensor([buffer])}))


def digest(body: bytes) -> str:
    """A ``Content-Digest``."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


class Phone:
    """One device, by HTTP alone."""

    def __init__(self, client: httpx.AsyncClient, credential: str) -> None:
        self.client = client
        self.credential = credential
        self.headers = {"Authorization": f"Bearer {credential}"}

    @property
    def device_id(self) -> str:
        return self.credential.partition(".")[0]

    async def check_in(self, **changed: object) -> dict[str, Any]:
        answer = await self.client.post(f"{BASE}/check-in", json=CHECK_IN | changed, headers=self.headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def assigned(self) -> dict[str, Any]:
        """Work, waited for while a version is being made."""
        for _ in range(400):
            answer = await self.check_in()
            if answer["assignment"]:
                found: dict[str, Any] = answer["assignment"]
                return found
            assert answer["turned_away"]["reason"] == "preparing", answer
            await asyncio.sleep(0.01)
        raise AssertionError("the version is not made")

    async def report(
        self, assignment: int, body: bytes, *, headers: dict[str, str] | None = None, **facts: object
    ) -> httpx.Response:
        told = {"num_examples": 4, "steps": 1, "examples_held": 5, "train_loss": 0.5} | facts
        return await self.client.put(
            f"{BASE}/reports/{assignment}",
            params={name: value for name, value in told.items() if value is not None},
            content=body,
            headers=self.headers | {"Content-Digest": digest(body)} | (headers or {}),
        )

    async def weights(self, entry: dict[str, Any]) -> dict[str, torch.Tensor]:
        answer = await self.client.get(f"{BASE}/files/{entry['sha256']}", headers=self.headers)
        assert answer.status_code == 200, answer.text
        assert hashlib.sha256(answer.content).hexdigest() == entry["sha256"]
        return tensors_from_bytes(answer.content)


class Running:
    """A service and a client of it."""

    def __init__(
        self, service: Service, client: httpx.AsyncClient, folder: Path, log: io.StringIO, database_url: str
    ) -> None:
        self.service, self.client, self.folder, self.log = service, client, folder, log
        self.database_url = database_url

    async def phone(self) -> Phone:
        (token,) = issue_tokens(self.folder, database_url=self.database_url)
        answer = await self.client.post(f"{BASE}/enrol", json={"token": token})
        assert answer.status_code == 201, answer.text
        return Phone(self.client, answer.json()["credential"])

    async def version(self, number: int) -> None:
        """Wait until a version is made."""
        for _ in range(400):
            parts = self.service.upkeep.leader
            if parts is not None and parts.versions.newest.version >= number:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"version {number} is not made: {self.log.getvalue()}")


@asynccontextmanager
async def running(plan: ServicePlan, folder: Path, *, database_url: str = "") -> AsyncIterator[Running]:
    """The service in this process, its application called without a socket."""
    log = io.StringIO()
    service = Service(plan, folder, database_url=database_url, log=ServiceLog(log))
    transport = httpx.ASGITransport(app=make_app(service), client=("10.0.0.1", 1))
    try:
        await service.start()
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            yield Running(service, client, folder, log, database_url)
    finally:
        await service.stop()


def canonical(**tensors: torch.Tensor) -> bytes:
    """Bytes of any tensors."""
    return tensors_to_bytes(tensors)
