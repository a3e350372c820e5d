"""Python's search for objects in circles, put off while one method of a bundle is traced, translated or lowered.

Millions of objects are made then, nearly all of which end when nothing refers to them; looking through them again and
again took an eighth of the time. What is left in circles goes at the next search, after the method.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collection_put_off"]


@contextmanager
def collection_put_off() -> Iterator[None]:
    """Search for no circles meanwhile, unless that was put off already."""
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()
