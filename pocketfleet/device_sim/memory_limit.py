"""A process under a phone's free memory, by the kernel's own limit on what it may hold.

``RLIMIT_DATA`` counts a process's private writable memory (getrlimit(2), since Linux 4.7). Programs, libraries and what
they took when they were loaded are the host's, not the phone's: the limit lies as far above the process's own use as
the phone has free. What asks for more is refused, which ends the attempt; a phone would kill the app.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["is_out_of_memory", "memory_limit"]

# How libraries tell that memory was refused: torch 2.13's allocator, the C++ library, protobuf within onnxruntime 1.32,
# its arena, ExecuTorch 1.5's error 0x21 (runtime/core/error.h, MemoryAllocationFailed), the system's own words.
_REFUSALS = (
    *("can't allocate memory", "std::bad_alloc", "Out of memory", "Failed to allocate memory"),
    *("MemoryAllocationFailed", "0x21", "Cannot allocate memory"),
)


@contextmanager
def memory_limit(free_bytes: float, *, above_bytes: int) -> Iterator[None]:
    """Allow this process so many bytes more than it held once; what it was allowed before is restored.

    Elsewhere than on Linux nothing is limited: no other system tells what counts.

    Args:
        free_bytes: of the phone.
        above_bytes: what the process held when it had loaded what it runs with, ``process_memory.data_bytes``.
    """
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    # Never under 0, which would be no limit at all.
    wanted = max(above_bytes + int(free_bytes), 0)
    if not above_bytes or (before != resource.RLIM_INFINITY and before <= wanted):
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that memory was refused."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or any(word in str(seen) for word in _REFUSALS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
