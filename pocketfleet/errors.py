"""The errors of pocketfleet, by whose fault they are.

Everything raised on purpose derives from ``PocketfleetError``. The command line turns ``InputError``
into exit code 2 and one paragraph; anything else is our failure, exit code 1.
"""

__all__ = ["BundleError", "GateError", "InputError", "PocketfleetError", "PocketfleetWarning", "TrainingDivergedError"]


class PocketfleetError(Exception):
    """Base of every error that pocketfleet raises on purpose."""


class PocketfleetWarning(UserWarning):
    """Something asked for is left out, and the work goes on; the command line prints it as one line."""


class InputError(PocketfleetError):
    """The user's input is wrong: a file, a key, a value, a task. The message says how to get out."""


class BundleError(InputError):
    """A bundle's files are missing, altered, or not what its manifest says."""


class GateError(InputError):
    """An exported program does not compute what eager PyTorch computes; nothing was written."""


class TrainingDivergedError(InputError):
    """Every accepted update of a round, or the global model's loss, is not finite."""
