"""Which module of a model is running: where an error came from, how messages name it, and what to do about it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

__all__ = ["RunningModule", "error_advice", "module_text", "returning_module", "running_module"]


def module_text(model: nn.Module, path: str) -> str:
    """How messages name the module at ``path``: ``layer body.3 (ReplicationPad2d)``; ``""`` is the model itself."""
    if not path:
        return f"the model itself ({type(model).__name__})"
    try:
        return f"layer {path} ({type(model.get_submodule(path)).__name__})"
    except AttributeError:
        return f"layer {path}"


def error_advice(error: Exception) -> str:
    """A sentence on the way out of what torch raises most often for a model; empty for the rest."""
    if isinstance(error, TypeError) and "positional argument" in str(error):
        return (
            ". A model is called as model(x): put several inputs into one tensor, and take it apart in a module around "
            "your model"
        )
    if "more than 1 value per channel" in str(error):
        return (
            ". Batch norm cannot train on one value a channel: give batches of two or more, or use GroupNorm or "
            "LayerNorm"
        )
    return ""


class RunningModule:
    """The modules of a model that are running; after an error, those that were when it passed."""

    def __init__(self, model: nn.Module, on_change: Callable[[str | None], None]) -> None:
        self._model, self._on_change = model, on_change
        self._paths: list[str] = []

    @property
    def path(self) -> str | None:
        """The path of the innermost one; ``None`` outside the model."""
        return self._paths[-1] if self._paths else None

    def text(self, *, outside: str) -> str:
        """How messages name the innermost one; ``outside`` where none is running."""
        return outside if self.path is None else module_text(self._model, self.path)

    def enter(self, path: str) -> None:
        """A module starts."""
        self._paths.append(path)
        self._on_change(self.path)

    def leave(self, path: str) -> None:
        """A module has returned, and with it those inside it whose error the model itself has caught."""
        while self._paths and self._paths.pop() != path:
            pass
        self._on_change(self.path)


@contextmanager
def running_module(
    model: nn.Module, *, on_change: Callable[[str | None], None] = lambda _path: None
) -> Iterator[RunningModule]:
    """Watch which module of ``model`` is running; ``on_change`` is told the path of each that takes over."""
    running = RunningModule(model, on_change)
    with ExitStack() as stack:
        for path, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(_calling(running.enter, path)).remove)
            stack.callback(module.register_forward_hook(_calling(running.leave, path)).remove)
        yield running


def _calling(call: Callable[[str], None], path: str) -> Callable[..., None]:
    return lambda *_: call(path)


def returning_module(model: nn.Module, x: Any) -> str:  # noqa: ANN401 - whatever the model takes
    """How messages name the innermost module whose output is the model's own."""
    outputs: list[tuple[str, Any]] = []

    def keep(path: str) -> Callable[..., None]:
        return lambda _module, _args, output: outputs.append((path, output))

    with ExitStack() as stack:
        for path, module in model.named_modules():
            stack.callback(module.register_forward_hook(keep(path)).remove)
        found = model(x)
    # The innermost returns first.
    return module_text(model, next((path for path, output in outputs if output is found), ""))
