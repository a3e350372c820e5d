from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketfleet.device_sim.compute import shared_peak_flops
from pocketfleet.device_sim.measurement import Measurement, Work, read_measurements, write_measurements
from pocketfleet.device_sim.phone import find_phone
from pocketfleet.errors import InputError

HEADER = (
    "measurement,phone,runtime,scope,operator_class,operators,flops,bytes,seconds,"
    "model,threads,peak_gflops,memory_gb_per_s\n"
)
GOOD = "a,host,onnx,step,matmul,2,8e6,1e5,0.5,mlp,1,100,10\n"


def table(folder: Path, *rows: str) -> Path:
    path = folder / "measurements.csv"
    path.write_text(HEADER + "".join(rows))
    return path


def test_rows_of_one_name_are_one_measurement(tmp_path: Path) -> None:
    path = table(tmp_path, GOOD, GOOD.replace("matmul,2,8e6", "copy,3,0"), GOOD.replace("a,host", "b,host"))
    first, second = read_measurements(path)
    assert (first.name, second.name) == ("a", "b")
    assert first.work == (
        Work(operator_class="matmul", operators=2, flops=8e6, bytes=1e5),
        Work(operator_class="copy", operators=3, flops=0.0, bytes=1e5),
    )
    assert (first.seconds, first.peak_flops, first.memory_bytes_per_s) == (0.5, 100e9, 10e9)
    assert (first.model, first.threads, first.inference_s) == ("mlp", 1, 0.0)


def test_the_catalogue_knows_its_phones(tmp_path: Path) -> None:
    phone = find_phone("Pixel 8")
    path = table(tmp_path, "a,Pixel 8,onnx,step,matmul,2,8e6,1e5,0.5,,4,,\n")
    (one,) = read_measurements(path)
    assert one.peak_flops == phone.peak_flops_one_thread
    assert one.parallel_peak_flops == shared_peak_flops(phone, threads=4)
    assert one.memory_bytes_per_s == phone.memory_bytes_per_s


numbers = st.floats(1e-3, 1e12)
works = st.builds(
    Work,
    operator_class=st.sampled_from(["matmul", "copy"]),
    operators=st.integers(1, 1000),
    flops=st.floats(0.0, 1e12),
    bytes=st.floats(0.0, 1e12),
)
measured = st.builds(
    Measurement,
    name=st.just("a"),
    phone=st.just("host"),
    runtime=st.just("onnx"),
    scope=st.sampled_from(["step", "operators"]),
    model=st.sampled_from(["", "mlp"]),
    threads=st.integers(2, 8),
    seconds=numbers,
    peak_flops=numbers,
    parallel_peak_flops=numbers,
    memory_bytes_per_s=numbers,
    inference_flops=st.floats(0.0, 1e12),
    inference_s=numbers,
    work=st.lists(works, min_size=1, max_size=3).map(tuple),
)


@given(measured)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, one: Measurement) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_measurements([one], path, source="a test, with a comma")
    (found,) = read_measurements(path)
    for name in ("name", "phone", "runtime", "scope", "model", "threads"):
        assert getattr(found, name) == getattr(one, name)
    for name in (
        "seconds",
        "peak_flops",
        "parallel_peak_flops",
        "memory_bytes_per_s",
        "inference_flops",
        "inference_s",
    ):
        # Six digits are kept.
        assert getattr(found, name) == pytest.approx(getattr(one, name), rel=1e-5)
    assert [(work.operator_class, work.operators) for work in found.work] == [
        (work.operator_class, work.operators) for work in one.work
    ]


WRONG = [
    (("a,host,onnx,step,matmul,2,8e6,1e5,0,mlp,1,100,10\n",), "row 2, column seconds: must be a number more than 0"),
    (("a,host,onnx,whole,matmul,2,8e6,1e5,1,mlp,1,100,10\n",), "column scope: must be one of step, operators"),
    (("a,host,onnx,step,matmul,2.5,8e6,1e5,1,mlp,1,100,10\n",), "column operators: must be a whole number, got 2.5"),
    (("a,host,onnx,step,matmul,0,8e6,1e5,1,mlp,1,100,10\n",), "column operators: must be a number more than 0"),
    (("a,host,onnx,step,matmul,2,8e6,1e5,1,mlp,1.5,100,10\n",), "column threads: must be a whole number, got 1.5"),
    (("a,Nokia 3310,onnx,step,matmul,2,8e6,1e5,1,mlp,1,,\n",), "there is no phone 'Nokia 3310' .* fill the columns"),
    (("a,host,onnx,step,matmul,2,8e6,1e5,1,mlp,2,100,10\n",), "with more than one thread, parallel_peak_gflops"),
    ((GOOD, GOOD.replace("0.5,mlp", "0.6,mlp")), "row 3, column seconds: measurement 'a' has '0.5' in its first row"),
]


@pytest.mark.parametrize(("rows", "message"), WRONG)
def test_a_wrong_row_is_told(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_measurements(table(tmp_path, *rows))


def test_a_missing_column_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("measurement,phone\na,host\n")
    with pytest.raises(InputError, match="the header lacks the column runtime, scope"):
        read_measurements(path)
