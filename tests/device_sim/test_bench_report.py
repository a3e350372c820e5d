import json
from pathlib import Path

import pytest
from bench_reports import measurement, phone_report, prediction, report, result, run, step

from pocketfleet import Bundle
from pocketfleet.device_sim.bench_report import BenchReport, bundle_facts, read_report
from pocketfleet.errors import InputError

DOCS = Path(__file__).parents[2] / "docs" / "benchmark.md"


def a_report() -> BenchReport:
    return report(
        result(
            measurement("onnx", run(1, step(8, 0.002), step(1, 0.001)), run(2, step(8, 0.0015))),
            predicted=(prediction("Pixel 8", 0.01),),
        )
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    a_report().write(tmp_path / "out.json")
    assert read_report(tmp_path / "out.json") == a_report()
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]


def test_a_phone_tells_of_itself(tmp_path: Path) -> None:
    told = phone_report(result(measurement("executorch", run(1, step(8, 0.002)))))
    told.write(tmp_path / "phone.json")
    assert read_report(tmp_path / "phone.json") == told
    assert told.host.phone is not None
    assert told.host.phone.after.battery_celsius == 36.5


def test_a_machine_that_is_no_phone_may_leave_it_out(tmp_path: Path) -> None:
    raw = json.loads(a_report().model_dump_json())
    del raw["host"]["phone"]
    (tmp_path / "out.json").write_text(json.dumps(raw))
    assert read_report(tmp_path / "out.json") == a_report()


@pytest.mark.parametrize(
    ("key", "value"),
    [("thermal_status", 7), ("battery_ratio", 1.5), ("battery_celsius", 310.0), ("charging", 1), ("surprise", 1)],
)
def test_what_no_phone_tells_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    raw = json.loads(phone_report(result(measurement("executorch", run(1, step(8, 0.002))))).model_dump_json())
    raw["host"]["phone"]["after"][key] = value
    (tmp_path / "edited.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=rf"host\.phone\.after\.{key}: "):
        read_report(tmp_path / "edited.json")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file or directory; name a file in a folder"):
        a_report().write(tmp_path / "missing" / "out.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "is no result of a benchmark"),
        ('{"schema_version": 2}', "is no result of a benchmark"),
        ('{"kind": "pocketfleet-bench", "schema_version": 1}', "schema_version must be 2, got 1; measure again"),
        ('{"kind": "pocketfleet-bench", "schema_version": 2}', "suite: Field required"),
    ],
)
def test_what_is_no_report(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_report(tmp_path / "other.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory"):
        read_report(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("key", "value"), [("median_s", -1.0), ("median_s", "fast"), ("median_s", None), ("surprise", 1)]
)
def test_a_wrong_value_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    raw = json.loads(a_report().model_dump_json())
    raw["results"][0]["measured"][0]["processes"][0]["steps"][0]["latency"][key] = value
    (tmp_path / "edited.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=rf"results\.0\.measured\.0\.processes\.0\.steps\.0\.latency\.{key}: "):
        read_report(tmp_path / "edited.json")


def test_a_bundle_is_known_by_what_it_trains(boston_bundle: Bundle, mnist_bundle: Bundle) -> None:
    facts = bundle_facts(boston_bundle)
    assert facts == bundle_facts(Bundle.load(boston_bundle.path))
    assert facts.task == "boston"
    assert facts.workload_sha256 != bundle_facts(mnist_bundle).workload_sha256
    manifest = boston_bundle.manifest
    larger = Bundle(path=boston_bundle.path, manifest=manifest.model_copy(update={"max_batch": 9}))
    assert bundle_facts(larger).workload_sha256 != facts.workload_sha256
    # Other programs for the same work: comparable, and said to be others.
    files = {name: entry.model_copy(update={"sha256": "0" * 64}) for name, entry in manifest.files.items()}
    rebuilt = bundle_facts(Bundle(path=boston_bundle.path, manifest=manifest.model_copy(update={"files": files})))
    assert rebuilt.workload_sha256 == facts.workload_sha256
    assert rebuilt.programs_sha256 != facts.programs_sha256


def test_the_docs_name_every_key_of_the_schema() -> None:
    page = DOCS.read_text()
    schema = BenchReport.model_json_schema()
    keys = set(schema["properties"])
    for part in schema["$defs"].values():
        keys |= set(part["properties"])
    assert len(keys) > 40
    assert sorted(key for key in keys if f"`{key}`" not in page) == []
