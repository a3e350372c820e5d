"""Reports made by hand, for what is done with them."""

from pocketfleet.device_sim.bench_report import (
    BenchReport,
    BundleFacts,
    Host,
    Latency,
    OperatorRow,
    PhoneFacts,
    PhoneMoment,
    PhonePrediction,
    ProcessRun,
    Profile,
    Rules,
    RuntimeMeasurement,
    StepTimes,
    SustainedPoint,
    WorkloadResult,
)


def latency(median_s: float) -> Latency:
    return Latency(steps=20, median_s=median_s, p95_s=2 * median_s, minimum_s=median_s / 2)


def step(batch: int, median_s: float) -> StepTimes:
    return StepTimes(batch=batch, latency=latency(median_s), examples_per_s=batch / median_s, flops_per_s=1e9)


def run(threads: int, *steps: StepTimes, load_s: float = 0.5, peak: int = 300_000_000) -> ProcessRun:
    return ProcessRun(
        threads=threads,
        load_s=load_s,
        first_step_s=0.01,
        idle_rss_bytes=250_000_000,
        peak_rss_bytes=peak,
        steps=steps,
    )


def measurement(runtime: str, *runs: ProcessRun, sustained: tuple[SustainedPoint, ...] = ()) -> RuntimeMeasurement:
    profile = Profile(
        batch=8,
        steps=20,
        step_s=0.010,
        profiler_s=0.0005,
        unaccounted_s=0.0005,
        operators=(
            OperatorRow(name="Gemm", calls=3.0, seconds=0.006),
            OperatorRow(name="Add", calls=9.0, seconds=0.003),
        ),
    )
    return RuntimeMeasurement(
        runtime=runtime,  # type: ignore[arg-type]
        download_bytes=100_000,
        planned_memory_bytes=200_000,
        processes=runs,
        profile=profile,
        sustained=sustained,
    )


def prediction(phone: str, step_s: float, *, runtime: str = "onnx", fits: bool = True) -> PhonePrediction:
    return PhonePrediction(
        phone=phone,
        runtime=runtime,  # type: ignore[arg-type]
        batch=8,
        step_s=step_s,
        joules=2 * step_s,
        fits_memory=fits,
    )


def result(
    *measured: RuntimeMeasurement,
    workload: str = "boston",
    sha: str = "a" * 64,
    programs: str = "b" * 64,
    predicted: tuple[PhonePrediction, ...] = (),
) -> WorkloadResult:
    facts = BundleFacts(
        task=workload, max_batch=8, workload_sha256=sha, programs_sha256=programs, exported_with={"torch": "2.13.0"}
    )
    return WorkloadResult(workload=workload, bundle=facts, measured=measured, predicted=predicted)


def report(*results: WorkloadResult, host: str = "some core", suite: str | None = None) -> BenchReport:
    return BenchReport(
        suite=suite,
        rules=Rules(),
        host=Host(name=host, machine="x86_64", system="Linux", cores=2, load_average=0.1, versions={"python": "3.11"}),
        results=results,
    )


def moment(celsius: float | None, *, status: int | None = 0) -> PhoneMoment:
    return PhoneMoment(
        battery_ratio=0.8,
        charging=True,
        battery_amperes=-0.35,
        battery_volts=4.1,
        battery_celsius=celsius,
        thermal_status=status,
        free_memory_bytes=3_000_000_000,
    )


def phone_report(*results: WorkloadResult, model: str = "Pixel 8", manufacturer: str = "Google") -> BenchReport:
    """What the app writes: a phone that got warmer, and tells no load average."""
    facts = PhoneFacts(
        model=model,
        manufacturer=manufacturer,
        memory_bytes=8_000_000_000,
        before=moment(31.0),
        after=moment(36.5, status=None),
    )
    host = Host(
        name=model,
        machine="arm64-v8a",
        system="Android 14",
        cores=9,
        load_average=None,
        versions={"app": "0.1.0"},
        phone=facts,
    )
    return BenchReport(suite=None, rules=Rules(), host=host, results=results)
