"""What the files of a bundle cost, counted from the files, and whether a manifest says the same.

1. File sizes, ExecuTorch's planned memory, and ONNX's operators and peaks are read from the files.
2. A ``.pte`` file holds no costs at batch 1: ExecuTorch's operators are those of the task's program, lowered once more.
   That it plans the memory that the file plans shows that it was made for the same largest batch.
3. Sizes of weights, state and batch follow from the signature, which must be the task's.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pocketfleet.errors import BundleError
from pocketfleet.export.footprint import Footprint, OperatorCost, build_footprint
from pocketfleet.export.manifest import MANIFEST_FILE, PTE_FILE, Manifest, onnx_file
from pocketfleet.export.program import Programs
from pocketfleet.export.signature import METHODS, Signature

__all__ = ["check_costs", "check_signature", "executorch_footprint", "onnx_footprint"]


def executorch_footprint(
    folder: Path, signature: Signature, *, max_batch: int, operators: Mapping[str, tuple[OperatorCost, ...]]
) -> Footprint:
    """Costs of ``model.pte`` in ``folder``, whose operators were counted when it was lowered."""
    from pocketfleet.export.executorch import planned_memory

    path = folder / PTE_FILE
    return build_footprint(
        "executorch",
        signature,
        max_batch=max_batch,
        operators=operators,
        planned_bytes=planned_memory(path),
        file_bytes=_sizes([path]),
    )


def onnx_footprint(folder: Path, signature: Signature, *, max_batch: int) -> Footprint:
    """Costs of the three ONNX files in ``folder``."""
    from pocketfleet.export.onnx import count_onnx

    operators, peaks = count_onnx(folder, max_batch=max_batch)
    return build_footprint(
        "onnx",
        signature,
        max_batch=max_batch,
        operators=operators,
        planned_bytes=peaks,
        file_bytes=_sizes(folder / onnx_file(method) for method in METHODS),
    )


def _sizes(paths: Iterable[Path]) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in paths}


def check_costs(folder: Path, manifest: Manifest, programs: Programs, *, versions: Mapping[str, str]) -> None:
    """Count again and compare with the manifest.

    Args:
        folder: of the bundle.
        manifest: its manifest.
        programs: the task's, traced again with the manifest's settings and largest batch; for ExecuTorch if it is in.
        versions: of the distributions that trace and count now, by the names in ``exported_with``.

    Raises:
        BundleError: names the first value that is another, what the manifest says and what was counted.
    """
    batch, signature = manifest.max_batch, manifest.signature
    counted: dict[str, Footprint] = {}
    differences: Iterator[str] = iter(())
    if "onnx" in manifest.footprint:
        counted["onnx"] = onnx_footprint(folder, signature, max_batch=batch)
    if "executorch" in manifest.footprint:
        operators, planned = _lowered_again(programs, delegate_predict=manifest.predict == "xnnpack")
        counted["executorch"] = executorch_footprint(folder, signature, max_batch=batch, operators=operators)
        said = counted["executorch"].planned_bytes
        differences = _differences(f"{PTE_FILE} for max_batch {batch}: planned", said, planned)
    differences = itertools.chain(_differences("footprint", manifest.footprint, counted), differences)
    _require_none(differences, folder, manifest, versions)


def check_signature(folder: Path, manifest: Manifest, programs: Programs, *, versions: Mapping[str, str]) -> None:
    """Compare the manifest's signature with that of the task's programs; arguments and errors of ``check_costs``."""
    _require_none(_differences("signature", manifest.signature, programs.signature), folder, manifest, versions)


def _require_none(differences: Iterator[str], folder: Path, manifest: Manifest, versions: Mapping[str, str]) -> None:
    first = next(differences, None)
    if first is not None:
        raise BundleError(
            f"{folder / MANIFEST_FILE}: {first}; {_cause(manifest.exported_with, versions)}. Copy the bundle again, or "
            "export it again if the change was meant"
        )


def _lowered_again(
    programs: Programs, *, delegate_predict: bool
) -> tuple[dict[str, tuple[OperatorCost, ...]], dict[str, int]]:
    """Operators and planned memory of the task's program, lowered once more."""
    from pocketfleet.export.executorch import planned_memory, write_executorch

    with tempfile.TemporaryDirectory() as again:
        path = Path(again) / PTE_FILE
        return write_executorch(programs, path, delegate_predict=delegate_predict), planned_memory(path)


def _cause(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    others = [f"{name} {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]
    return f"the versions differ ({', '.join(others)})" if others else "the manifest was edited, or the task was"


def _differences(place: str, said: Any, counted: Any) -> Iterator[str]:  # noqa: ANN401 - any part of a manifest
    """One sentence for each value at which two equally built parts of a manifest differ."""
    if dataclasses.is_dataclass(said) and dataclasses.is_dataclass(counted):
        said, counted = _fields(said), _fields(counted)
    if isinstance(said, Mapping) and isinstance(counted, Mapping) and said.keys() == counted.keys():
        for key in said:
            yield from _differences(f"{place}.{key}", said[key], counted[key])
    elif isinstance(said, tuple) and isinstance(counted, tuple) and len(said) == len(counted):
        for index, pair in enumerate(zip(said, counted, strict=True)):
            yield from _differences(f"{place}.{index}", *pair)
    elif said != counted:
        yield f"{place} is {_short(said)}, counted again it is {_short(counted)}"


def _fields(value: Any) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _short(value: Any) -> str:  # noqa: ANN401 - any part of a manifest
    if isinstance(value, Mapping):
        return f"for {sorted(value)}"
    return f"{len(value)} long" if isinstance(value, tuple) else repr(value)
