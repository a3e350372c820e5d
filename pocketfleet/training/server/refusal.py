"""A request that is not granted: its status, a code for programs, a message for people."""

from pocketfleet.errors import PocketfleetError

__all__ = ["RefusedError"]


class RefusedError(PocketfleetError):
    """Becomes an ``ErrorAnswer``; with ``retry_after_s`` the same request may be granted then."""

    def __init__(self, status: int, code: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
