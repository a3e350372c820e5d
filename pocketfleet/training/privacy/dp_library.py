"""The library ``dp-accounting``, loaded where it is first needed: to load it takes a second."""

import sys
from typing import Any

__all__ = ["dp_library"]


def dp_library() -> Any:  # noqa: ANN401 - a module without types
    """The module ``dp_accounting``; tried with 0.6.0 and absl-py 2.5.1."""
    import dp_accounting
    from absl import logging as absl_logging

    # Its logging holds what was sys.stderr when it was loaded, and closes that where logging is configured anew, as by
    # a server in the same process. The process's own it leaves open.
    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__
    return dp_accounting
