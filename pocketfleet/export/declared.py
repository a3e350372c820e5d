"""Whether a program declares the inputs and outputs that the manifest's signature says, before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from pocketfleet.errors import BundleError
from pocketfleet.export.signature import BATCH, TensorSpec
from pocketfleet.export.signature_rules import described

__all__ = ["Declared", "check_declared"]


@dataclass(frozen=True, slots=True)
class Declared:
    """One input or output as its program has it.

    Attributes:
        name: ``None`` where programs know places only.
        sizes: ``None`` for a size that is known when it runs.
        dtype: torch's name, or the runtime's own for a type that no bundle has.
    """

    name: str | None
    sizes: tuple[int | None, ...]
    dtype: str


def check_declared(
    path: Path,
    what: str,
    declared: Sequence[Declared],
    specs: Sequence[tuple[str, TensorSpec]],
    *,
    batch: int | None,
) -> None:
    """Compare what a file declares with what a signature says.

    Args:
        path: of the file.
        what: of it is compared: ``inputs of predict``.
        declared: in the order of the file.
        specs: by the names that a file with names has, in the order of the signature.
        batch: the size that a file without open sizes has in place of the batch; ``None`` for any.

    Raises:
        BundleError: names the first that differs.
    """
    for index, (found, wanted) in enumerate(zip_longest(declared, specs)):
        if found is None or wanted is None or not _agree(found, *wanted, batch=batch):
            said = described(wanted[1]) if wanted else "nothing"
            raise BundleError(
                f"{path}: number {index} of the {what} is {_declared(found)}, the manifest says {said}"
                f"{'' if batch is None else f' for batches of {batch}'}; export the bundle again"
            )


def _agree(found: Declared, name: str, spec: TensorSpec, *, batch: int | None) -> bool:
    return (
        found.name in {None, name}
        and found.dtype == spec.dtype
        and len(found.sizes) == len(spec.shape)
        and all(_fits(size, said, batch) for size, said in zip(found.sizes, spec.shape, strict=True))
    )


def _fits(size: int | None, said: int | str, batch: int | None) -> bool:
    if said != BATCH:
        return size == said
    return size is None or batch is None or size == batch


def _declared(found: Declared | None) -> str:
    if found is None:
        return "nothing"
    sizes = [BATCH if size is None else size for size in found.sizes]
    return f"{found.name + ' ' if found.name else ''}{found.dtype} {sizes}"
