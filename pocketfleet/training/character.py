"""Characters as numbers, the same for every text: nothing is learnt from a device's own.

``0`` is the new line, ``1`` to ``95`` are the printable ASCII characters in their order. A tabulator counts as a space,
any other character as ``?``.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["CHARACTERS", "codes"]

CHARACTERS = 96
_FIRST_PRINTABLE, _LAST_PRINTABLE = 0x20, 0x7E


def codes(text: str) -> npt.NDArray[np.int64]:
    """The numbers of a text's characters, ``int64 [characters]``, each below ``CHARACTERS``."""
    code = np.frombuffer(text.replace("\t", " ").encode("utf-32-le"), dtype="<u4").astype(np.int64)
    printable = (code >= _FIRST_PRINTABLE) & (code <= _LAST_PRINTABLE)
    number = np.where(printable, code, ord("?")) - _FIRST_PRINTABLE + 1
    return np.where(code == ord("\n"), 0, number)
