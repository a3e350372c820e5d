"""The commands on bundles, ``export``, ``verify``, ``inspect`` and ``explain``; ``cli`` puts them on its program.

Everything heavy is imported inside the command that needs it, so that ``--help`` is quick.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pocketfleet.errors import InputError
from pocketfleet.printing import print_table

if TYPE_CHECKING:
    from pocketfleet.export.bundle import Bundle
    from pocketfleet.export.decompositions import Convolution
    from pocketfleet.export.footprint import Footprint
    from pocketfleet.training.step_settings import Optimizer

__all__ = ["explain", "export", "inspect", "verify"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
BundlePath = Annotated[Path, typer.Argument(help="A bundle's folder.")]


def export(
    task: Annotated[str, typer.Argument(help='A packaged task, or "my_module:make_task".')],
    out: Annotated[Path, typer.Option(help="The bundle's folder.")],
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="An option of the task.")
    ] = None,
    trainable: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help='Train the parameters so named only, such as "head.*"; may be repeated.'),
    ] = None,
    lora: Annotated[
        int, typer.Option(metavar="RANK", min=0, help="Train matrices of this rank beside linear layers; 0: none.")
    ] = 0,
    optimizer: Annotated[str, typer.Option(help="sgd, adam or adamw.")] = "sgd",
    max_batch: Annotated[int, typer.Option(min=1, help="The largest batch; planned memory is for it.")] = 16,
    momentum: Annotated[float, typer.Option(min=0.0, max=1.0, help="SGD's; 0 leaves it out.")] = 0.0,
    nesterov: Annotated[bool, typer.Option("--nesterov", help="Nesterov momentum.")] = False,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="0 leaves it out.")] = 0.0,
    proximal_mu: Annotated[float, typer.Option(min=0.0, help="FedProx's term; 0 leaves it out.")] = 0.0,
    max_norm: Annotated[float, typer.Option(min=0.0, help="Gradient clipping; 0 leaves it out.")] = 0.0,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="The manifest's default.  [default: 0.01, with Adam 0.001]")
    ] = None,
    only: Annotated[str | None, typer.Option(help="executorch or onnx: for one runtime alone.")] = None,
    int8_predict: Annotated[
        bool, typer.Option("--int8-predict", help="A quantised copy of predict too; it never sees trained weights.")
    ] = False,
    training_module: Annotated[
        bool, typer.Option("--training-module", help="A file for ExecuTorch's own TrainingModule too.")
    ] = False,
    conv: Annotated[
        str | None,
        typer.Option(
            "--conv", help="matmul or native: ExecuTorch's convolutions.  [default: the faster, timed on this machine]"
        ),
    ] = None,
    snippets: Annotated[
        bool, typer.Option("--snippets", help="A training loop in Python, Node, Kotlin and Swift too.")
    ] = False,
    gate_steps: Annotated[int, typer.Option(min=1, help="Steps in which programs must follow PyTorch.")] = 20,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Draws the initial weights.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier bundle in --out.")] = False,
) -> None:
    """Export a task to the folder that goes to a phone: programs for ExecuTorch and ONNX, weights, manifest."""
    from pocketfleet.experiment import parsed_settings
    from pocketfleet.export.exporter import export_task
    from pocketfleet.training.adaptation import Adaptation
    from pocketfleet.training.step_settings import chosen_terms
    from pocketfleet.training.task import load_task

    if nesterov and momentum == 0.0:
        raise InputError("--nesterov needs a --momentum above 0")
    settings, hyper = chosen_terms(
        optimizer=cast("Optimizer", optimizer),
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        proximal_mu=proximal_mu,
        max_norm=max_norm,
    )
    task_options = parsed_settings(options or ())
    bundle = export_task(
        load_task(task, task_options),
        out=out,
        settings=settings,
        hyper=hyper,
        max_batch=max_batch,
        task_path=task,
        task_options=task_options,
        adaptation=Adaptation(trainable=tuple(trainable or ()), lora_rank=lora),
        seed=seed,
        only=only,
        int8_predict=int8_predict,
        training_module=training_module,
        convolution=cast("Convolution | None", conv),
        snippets=snippets,
        gate_steps=gate_steps,
        force=force,
    )
    typer.echo(f"wrote {bundle.path}")
    print_table([_summary(bundle, bundle.footprint(runtime)) for runtime in bundle.runtimes])


def verify(
    bundle: BundlePath,
    steps: Annotated[int, typer.Option(min=1, help="Steps in which programs must follow PyTorch.")] = 20,
    as_json: Json = False,
) -> None:
    """Check a bundle's hashes, and its programs against eager PyTorch."""
    from pocketfleet.export.bundle import Bundle
    from pocketfleet.export.verification import verify_bundle

    report = verify_bundle(Bundle.load(bundle), steps=steps)
    rows: list[dict[str, Any]] = [
        {
            "runtime": row.runtime,
            "check": row.check,
            "worst tensor": row.tensor,
            "error": f"{row.error:.1e}",
            "allowed": f"{row.tolerance:.1e}",
            "passed": row.passed,
        }
        for row in report.worst()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_table(rows)


def inspect(
    bundle: BundlePath,
    layers: Annotated[int, typer.Option(min=0, help="Show so many layers that cost most; 0: all.")] = 12,
    as_json: Json = False,
) -> None:
    """Tell what a bundle's programs cost: operators, FLOPs, bytes, planned memory and sizes, by method and by layer."""
    from pocketfleet.export.bundle import Bundle

    loaded = Bundle.load(bundle)
    found = {runtime: _costs(loaded.footprint(runtime)) for runtime in loaded.runtimes}
    if as_json:
        files = {name: entry.bytes for name, entry in loaded.manifest.files.items()}
        typer.echo(json.dumps({"files": files, "max_batch": loaded.max_batch, "runtimes": found}, indent=2))
        return
    print_table([_summary(loaded, loaded.footprint(runtime)) for runtime in loaded.runtimes])
    for runtime, costs in found.items():
        typer.echo(f"{runtime}, a batch of {loaded.max_batch}")
        print_table([{"method": row.pop("method"), **_readable(row)} for row in costs["methods"]])
        shown = costs["layers"][: layers or None]
        print_table([{"layer of the training step": row.pop("layer"), **_readable(row)} for row in shown])
        print_table(
            [{"operator": row.pop("operator"), **_readable(row)} for row in costs["operators"][: layers or None]]
        )
    if loaded.manifest.predict:
        typer.echo(f"ExecuTorch's predict runs on: {loaded.manifest.predict}")
    if loaded.manifest.convolution:
        typer.echo(f"ExecuTorch's convolutions: {loaded.manifest.convolution}")
    if loaded.manifest.int8:
        typer.echo(f"predict_int8: outputs {loaded.manifest.int8.output_error:.1%} off float32")
    print_table([{"file": name, "bytes": f"{entry.bytes:,}"} for name, entry in loaded.manifest.files.items()])


def explain(
    bundle: BundlePath,
    memory: Annotated[str, typer.Option(help="What a training step may take, such as 200MB.")],
    runtime: Annotated[str | None, typer.Option(help="executorch or onnx.  [default: the bundle's first]")] = None,
    layers: Annotated[int, typer.Option(min=0, help="Show so many layers that cost most; 0: all.")] = 12,
    as_json: Json = False,
) -> None:
    """Tell which layers of a training step cost most, and the smallest freeze or batch that fits a memory."""
    import dataclasses

    from pocketfleet.export.bundle import Bundle
    from pocketfleet.export.explanation import explain_bundle
    from pocketfleet.export.plan import runtimes_of
    from pocketfleet.export.verification import own_task

    memory_bytes = _parsed_bytes(memory)
    loaded = Bundle.load(bundle)
    chosen = runtimes_of(runtime)[0] if runtime else loaded.runtimes[0]
    found = explain_bundle(loaded, own_task(loaded), runtime=chosen, memory_bytes=memory_bytes)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
        return
    print_table(
        [
            {
                "layer": cost.layer,
                "share": f"{cost.flops_ratio:.1%}",
                "MFLOP": f"{cost.flops / 1e6:,.2f}",
                "moved, MB": f"{cost.bytes / 1e6:,.2f}",
            }
            for cost in found.layers[: layers or None]
        ]
    )
    print_table([{"batch": str(size), "memory, MB": f"{needed / 1e6:,.2f}"} for size, needed in found.by_batch])
    needs = f"{found.training_memory_bytes / 1e6:,.2f} MB at batch {loaded.max_batch} on {chosen}"
    if found.fits:
        typer.echo(f"fits: a training step takes {needs}")
        return
    typer.echo(f"does not fit: a training step takes {needs}")
    typer.echo(
        f"smaller batch: --max-batch {found.batch[0]} takes {found.batch[1] / 1e6:,.2f} MB"
        if found.batch
        else "smaller batch: not even one example fits"
    )
    typer.echo(
        f"freeze: {', '.join(found.freeze.frozen)} frozen takes {found.freeze.training_memory_bytes / 1e6:,.2f} MB: "
        + " ".join(f"--trainable '{name}'" for name in found.freeze.trainable)
        if found.freeze
        else "freeze: no freeze of whole modules fits at this batch"
    )


def _parsed_bytes(text: str) -> int:
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = units.get(found[2].upper()) if found else None
    if found is None or unit is None or float(found[1]) * unit < 1:
        raise InputError(f"--memory must be a number of bytes with a unit, such as 200MB or 1.5GiB, got {text!r}")
    return int(float(found[1]) * unit)


def _summary(bundle: "Bundle", footprint: "Footprint") -> dict[str, Any]:
    return {
        "runtime": footprint.runtime,
        "first download": f"{bundle.download_bytes(footprint.runtime) / 1e3:,.0f} kB",
        "training memory": f"{footprint.training_memory_bytes / 1e3:,.0f} kB",
        "step": f"{footprint.step_flops / 1e6:,.2f} MFLOP",
        "moved": f"{footprint.step_bytes / 1e6:,.2f} MB",
    }


def _costs(footprint: "Footprint") -> dict[str, list[dict[str, Any]]]:
    """Costs at the largest batch; the dearest layers and operators of the training step first."""
    methods = [
        {
            "method": method,
            "operators": len(operators),
            "flops": sum(cost.flops[1] for cost in operators),
            "bytes": sum(cost.bytes[1] for cost in operators),
            "planned_bytes": footprint.planned_bytes[method],
        }
        for method, operators in footprint.operators.items()
    ]
    return {
        "methods": methods,
        "layers": _grouped(footprint, "layer"),
        "operators": [{"operator": row.pop("name"), **row} for row in _grouped(footprint, "name")],
    }


def _grouped(footprint: "Footprint", key: str) -> list[dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for cost in footprint.operators["train_step"]:
        label = getattr(cost, key)
        row = groups.setdefault(label, {key: label, "operators": 0, "flops": 0, "bytes": 0})
        row["operators"] += 1
        row["flops"] += cost.flops[1]
        row["bytes"] += cost.bytes[1]
    return sorted(groups.values(), key=lambda row: (row["flops"], row["bytes"]), reverse=True)


def _readable(row: dict[str, Any]) -> dict[str, str]:
    units = {"flops": ("MFLOP", 1e6), "bytes": ("moved, MB", 1e6), "planned_bytes": ("planned, kB", 1e3)}
    return {
        units[name][0] if name in units else name: f"{value / units[name][1]:,.2f}" if name in units else str(value)
        for name, value in row.items()
    }
