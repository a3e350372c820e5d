"""Whether a bundle still is what its manifest says and computes what its task's model computes in PyTorch."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from pocketfleet.errors import BundleError, InputError
from pocketfleet.export.bundle import Bundle
from pocketfleet.export.bundle_writer import installed_versions, trace
from pocketfleet.export.gate import STEPS, run_gate
from pocketfleet.export.gate_report import GateReport, GateRow, Suspects, require
from pocketfleet.export.manifest import TRAINING_MODULE_FILE
from pocketfleet.export.plan import Plan
from pocketfleet.export.recount import check_costs, check_signature
from pocketfleet.export.session import EagerSession, Runtime, open_session
from pocketfleet.training.adaptation import adapted
from pocketfleet.training.task import Task, check_task, initial_model, load_task, task_examples

__all__ = ["gate_bundle", "own_task", "verify_bundle"]


def verify_bundle(bundle: Bundle, task: Task | None = None, *, steps: int = STEPS) -> GateReport:
    """Check a bundle's files, count its costs again, and run its gate again from the bundle's own weights.

    Args:
        bundle: its folder is read again.
        task: what it was exported from, before any adaptation (``ModelTask(model, loss, example_batch)`` for a bare
            model); if left out, found by the path and the options in the manifest.
        steps: training steps in which the programs must follow PyTorch.

    Raises:
        InputError: the task is not found.
        BundleError: a file changed since it was loaded, the weights are not those of the task's model, or the manifest
            states other costs than those of the files.
        GateError: a program computes something else than PyTorch does.
    """
    bundle = Bundle.load(bundle.path)
    task = adapted(task or own_task(bundle), bundle.adaptation)
    examples = task_examples(task, "train")
    model = initial_model(task, seed=0)
    own, found = check_task(task, model, examples), bundle.weights()
    for group in ("trainable", "buffers", "frozen"):
        wanted = {name: value.shape for name, value in getattr(own, group).items()}
        if wanted != {name: value.shape for name, value in getattr(found, group).items()}:
            raise BundleError(
                f"{bundle.path} was not exported from task {task.name!r}: its {group} weights are others than those of "
                f"the task's model; it names the task {bundle.task.path!r} with options {bundle.task.options}"
            )
    plan = Plan(
        task=task,
        task_path=bundle.task.path,
        task_options=bundle.task.options,
        adaptation=bundle.adaptation,
        model=model,
        weights=found,
        examples=examples,
        settings=bundle.settings,
        hyper=bundle.hyper,
        max_batch=bundle.max_batch,
        runtimes=bundle.runtimes,
    )
    programs, versions = trace(plan, bundle.runtimes[0]), installed_versions()
    # First the signature, by which the programs are run.
    check_signature(bundle.path, bundle.manifest, programs, versions=versions)
    report = gate_bundle(bundle, task, model, steps=steps)
    operators: dict[str, Suspects] = {
        runtime: Suspects(operators=frozenset(cost.name for cost in bundle.footprint(runtime).operators["train_step"]))
        for runtime in bundle.runtimes
    }
    require(report, operators)
    check_costs(bundle.path, bundle.manifest, programs, versions=versions)
    return report


def own_task(bundle: Bundle) -> Task:
    """The task that a bundle's manifest names, before any adaptation.

    Raises:
        InputError: it names none, or the one that it names is not found.
    """
    if bundle.task.path is None:
        raise InputError(
            f"{bundle.path} was exported from a model in Python, which the bundle does not hold: verify it there with "
            "verify_bundle(bundle, ModelTask(model, loss, example_batch)), or export it as a task, my_module:make_task"
        )
    return load_task(bundle.task.path, bundle.task.options)


def gate_bundle(bundle: Bundle, task: Task, model: nn.Module, *, steps: int) -> GateReport:
    """Run the gate over a bundle's files, from the bundle's own weights; ``model`` is the task's, adapted.

    Raises:
        InputError: a runtime cannot load or run its program at all.
    """
    eager = EagerSession(task, model, bundle.settings)
    rows: list[GateRow] = []
    for runtime in bundle.runtimes:
        with _runs(runtime):
            report = run_gate(
                {runtime: open_session(bundle, runtime)},
                eager,
                weights=bundle.weights(),
                examples=task_examples(task, "train"),
                settings=bundle.settings,
                hyper=bundle.hyper,
                max_batch=bundle.max_batch,
                steps=steps,
            )
        rows += report.rows
    if bundle.manifest.training_module:
        from pocketfleet.export.training_module import check_training_module

        path, examples = bundle.path / TRAINING_MODULE_FILE, task_examples(task, "train")
        rows += check_training_module(path, task, model, bundle.weights(), examples, batch_size=bundle.max_batch)
    return GateReport(tuple(rows))


@contextmanager
def _runs(runtime: Runtime) -> Iterator[None]:
    """Whatever a runtime raises for an operator that it lacks becomes an ``InputError``."""
    try:
        yield
    except RuntimeError as exc:
        raise InputError(
            f"the program cannot be exported for {runtime}, which does not run it: {exc}. It said which operator it "
            "lacks above, if it knows. Replace the layer that it comes from (docs/limits.md lists those that export), "
            "or export for the other runtime alone"
        ) from exc
