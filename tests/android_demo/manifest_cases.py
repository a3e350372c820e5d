"""A small manifest with every role in it, and lies about it: ``cases/manifest.json``, for the app's reader.

Run it to write the file anew. Each lie puts one value at a path, or takes away what is there; both readers refuse it.
"""

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

__all__ = ["FILE", "LIES", "Lie", "manifest_text", "text", "told"]

FILE = Path(__file__).parent / "cases" / "manifest.json"


class Lie(TypedDict):
    """``app`` is in the app's message; ``python`` is found in Python's, where it has to be said otherwise."""

    name: str
    path: list[str | int]
    value: NotRequired[Any]
    app: str
    python: str


def _spec(role: str, name: str, shape: list[str | int], dtype: str = "float32") -> dict[str, Any]:
    return {"role": role, "name": name, "shape": shape, "dtype": dtype}


def _signature() -> dict[str, Any]:
    # A linear model of three features that drops some of them, counts its steps, and shifts by a frozen offset.
    trainable = [_spec("trainable", "0.bias", [1]), _spec("trainable", "0.weight", [1, 3])]
    buffers = [_spec("buffer", "steps", [], "int64")]
    slots = [_spec("slot", f"momentum/{one['name']}", one["shape"]) for one in trainable]
    frozen = [_spec("frozen", "offset", [3])]
    terms = [_spec(role, one["name"], one["shape"]) for role in ("anchor", "correction") for one in trainable]
    x, y = _spec("x", "x", ["batch", 3]), _spec("y", "y", ["batch", 1])
    hyper = [_spec("hyper", name, []) for name in ("learning_rate", "momentum", "proximal_mu")]
    uniform = [_spec("uniform", "0", ["batch", 3])]
    loss = _spec("loss", "loss", [])
    weights = [*trainable, *buffers, *frozen]
    return {
        "train_step": {
            "inputs": [*trainable, *buffers, *slots, *frozen, *terms, x, y, *hyper, *uniform],
            "outputs": [loss, *trainable, *buffers, *slots],
        },
        "predict": {"inputs": [*weights, x], "outputs": [_spec("output", "output", ["batch", 1])]},
        "evaluate": {"inputs": [*weights, x, y], "outputs": [loss, _spec("metric", "mae", [])]},
    }


def _footprint() -> dict[str, Any]:
    methods = ("train_step", "predict", "evaluate")
    one = {"name": "mm", "layer": "0", "kind": "matmul", "flops": [6, 48], "bytes": [28, 140]}
    return {
        "runtime": "executorch",
        "max_batch": 8,
        "operators": {method: [one] for method in methods},
        "planned_bytes": {"train_step": 4096, "predict": 512, "evaluate": 640},
        # 4 trainable values, 3 frozen ones of 4 bytes, a count of 8; slots, anchor and correction of 4 values each.
        "weights_bytes": 36,
        "state_bytes": 48,
        # 8 examples of 4 values.
        "batch_bytes": 128,
        "file_bytes": {"model.pte": 5_000},
    }


def _manifest() -> dict[str, Any]:
    off = {"nesterov": False, "weight_decay": False, "clipping": False}
    return {
        "schema_version": 3,
        "task": {"name": "line", "path": None, "options": {}},
        "adaptation": {"trainable": ["0.*"], "lora_rank": 0},
        "settings": {"optimizer": "sgd", "momentum": True, "proximal": True, "correction": True, **off},
        "hyper": {"learning_rate": 0.1, "momentum": 0.9, "proximal_mu": 0.01},
        "max_batch": 8,
        "signature": _signature(),
        "footprint": {"executorch": _footprint()},
        "predict": "xnnpack",
        "int8": None,
        "training_module": False,
        "convolution": None,
        "files": {
            name: {"bytes": size, "sha256": f"{size:064x}"}
            for name, size in (("model.pte", 5_000), ("weights.safetensors", 300), ("frozen.safetensors", 100))
        },
        "exported_with": {"pocketfleet": "0.1.0"},
        "minimum_runtime": {"executorch": "1.5.1"},
    }


def _lie(name: str, path: list[str | int], *value: object, app: str, python: str = "") -> Lie:
    lie: Lie = {"name": name, "path": path, "app": app, "python": python or app}
    if value:
        lie["value"] = value[0]
    return lie


_STEP: list[str | int] = ["signature", "train_step"]

LIES = [
    _lie("an older version", ["schema_version"], 2, app="schema_version must be 3, got 2"),
    _lie("no version", ["schema_version"], app="schema_version must be", python="schema_version"),
    _lie(
        "a version in words", ["schema_version"], "3", app="schema_version must be", python="schema_version must be 3"
    ),
    _lie("no signature", ["signature"], app="signature must be an object", python="signature: Field required"),
    _lie("no batch at all", ["max_batch"], 0, app="max_batch must be a whole number from 1", python="max_batch"),
    _lie("half a batch", ["max_batch"], 1.5, app="max_batch must be a whole number from 1", python="max_batch"),
    _lie("an unknown optimizer", ["settings", "optimizer"], "lion", app="optimizer must be one of"),
    _lie("a rate of no term", ["settings", "momentum"], False, app="hyper must hold exactly"),
    _lie(
        "an Adam with momentum",
        ["settings", "optimizer"],
        "adam",
        app="momentum is of sgd alone",
        python="momentum and nesterov are SGD's",
    ),
    _lie(
        "a term that is no flag", ["settings", "proximal"], 1, app="settings.proximal must be true", python="settings"
    ),
    _lie("a rate too few", ["hyper", "learning_rate"], app="hyper must hold exactly"),
    _lie("a rate too many", ["hyper", "beta1"], 0.9, app="hyper must hold exactly"),
    _lie("a rate in words", ["hyper", "momentum"], "0.9", app="hyper.momentum must be a finite number", python="hyper"),
    _lie(
        "an unknown role",
        [*_STEP, "inputs", 0, "role"],
        "weight",
        app="signature.train_step.inputs.0.role must be",
        python="signature.train_step.inputs.0.role",
    ),
    _lie(
        "a type of no phone",
        [*_STEP, "inputs", 0, "dtype"],
        "complex64",
        app="signature.train_step.inputs.0.dtype must be one of float64",
        python="no tensor of a bundle is trainable/0.bias complex64",
    ),
    _lie(
        "a negative size",
        [*_STEP, "inputs", 0, "shape"],
        [-1],
        app="signature.train_step.inputs.0.shape must be sizes or batch",
        python="no tensor of a bundle",
    ),
    _lie(
        "seventeen dimensions",
        [*_STEP, "inputs", 0, "shape"],
        [1] * 17,
        app="signature.train_step.inputs.0.shape must be of 16 dimensions at most",
        python="no tensor of a bundle",
    ),
    _lie(
        "a weight as large as the batch",
        [*_STEP, "inputs", 0, "shape"],
        ["batch"],
        app="no weight is as large as a batch",
        python="no tensor of a bundle",
    ),
    _lie("weights out of order", [*_STEP, "inputs", 0, "name"], "1", app="names of trainable must be in order"),
    _lie("a weight twice", [*_STEP, "inputs", 0, "name"], "0.weight", app="names of trainable must be in order"),
    _lie("a batch of another name", [*_STEP, "inputs", 10, "name"], "z", app="there must be one batch x"),
    _lie("examples side by side", [*_STEP, "inputs", 10, "shape"], [3, "batch"], app="one batch x", python="no tensor"),
    _lie(
        "a slot of another weight", [*_STEP, "inputs", 3, "name"], "momentum/x", app="train_step.inputs.3 must be slot"
    ),
    _lie(
        "a hyper-parameter of a vector", [*_STEP, "inputs", 12, "shape"], [2], app="train_step.inputs.12 must be hyper"
    ),
    _lie("no anchor", [*_STEP, "inputs", 6], app="train_step.inputs.6 must be anchor"),
    _lie(
        "no loss",
        [*_STEP, "outputs", 0],
        app="train_step.outputs must hold one loss, first",
        python="train_step.outputs.0 must be loss",
    ),
    _lie("a loss of a vector", [*_STEP, "outputs", 0, "shape"], [1], app="one loss", python="outputs.0 must be loss"),
    _lie(
        "outputs of another order", [*_STEP, "outputs", 1, "name"], "0.w", app="train_step.outputs.1 must be trainable"
    ),
    _lie("a predict without frozen", ["signature", "predict", "inputs", 3], app="predict.inputs.3 must be frozen"),
    _lie("a predict of nothing", ["signature", "predict", "outputs"], [], app="predict.outputs must"),
    _lie("an evaluate without targets", ["signature", "evaluate", "inputs", 5], app="evaluate.inputs.5 must be y"),
    _lie(
        "an evaluate without loss",
        ["signature", "evaluate", "outputs", 0],
        app="evaluate.outputs must hold one loss, first",
        python="evaluate.outputs must start with the loss",
    ),
    _lie(
        "a metric called loss",
        ["signature", "evaluate", "outputs", 1, "name"],
        "loss",
        app="behind the loss there must be metrics only, each once",
    ),
    _lie(
        "no plan of memory",
        ["footprint", "executorch", "planned_bytes"],
        app="footprint.executorch.planned_bytes must be an object",
        python="planned_bytes",
    ),
    _lie("a predict on a toaster", ["predict"], "toaster", app="predict must be one of", python="predict"),
    _lie(
        "a way out",
        ["files", "../x"],
        {"bytes": 1, "sha256": "0" * 64},
        app="plain file names, got '../x'",
        python="plain file name",
    ),
    _lie(
        "a way back",
        ["files", "a\\b"],
        {"bytes": 1, "sha256": "0" * 64},
        app="plain file names",
        python="plain file name",
    ),
    _lie(
        "the folder itself",
        ["files", "."],
        {"bytes": 1, "sha256": "0" * 64},
        app="plain file names",
        python="plain file name",
    ),
    _lie(
        "half a hash",
        ["files", "model.pte", "sha256"],
        "0" * 32,
        app="files.model.pte.sha256 must be 64",
        python="sha256",
    ),
    _lie(
        "a hash in capitals", ["files", "model.pte", "sha256"], "A" * 64, app="files.model.pte.sha256", python="sha256"
    ),
    _lie(
        "less than nothing",
        ["files", "model.pte", "bytes"],
        -1,
        app="files.model.pte.bytes must be a whole",
        python="bytes",
    ),
    _lie(
        "more than any disk",
        ["files", "model.pte", "bytes"],
        2**70,
        app="files.model.pte.bytes must be a whole",
        python="bytes",
    ),
]


def manifest_text() -> str:
    """The sound one."""
    return json.dumps(_manifest())


def told(lie: Lie) -> str:
    """The manifest with a lie in it."""
    # Through text: one tensor's entries at several places are then several.
    manifest = json.loads(manifest_text())
    *way, last = lie["path"]
    place: Any = manifest
    for step in way:
        place = place[step]
    if "value" in lie:
        place[last] = lie["value"]
    else:
        del place[last]
    return json.dumps(manifest)


def text() -> str:
    """The file: the manifest and a line for each lie."""
    lies = ",\n".join("  " + json.dumps({key: one for key, one in lie.items() if key != "python"}) for lie in LIES)
    return f'{{\n "manifest": {manifest_text()},\n "lies": [\n{lies}\n ]\n}}\n'


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
