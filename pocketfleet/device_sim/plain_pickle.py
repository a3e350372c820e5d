"""Plain data out of a pickle, without unpickling: nothing in the file is imported, called or built.

A pickle is a program for a stack machine. The standard library's ``pickletools.genops`` takes it apart into
instructions without running any; the machine here knows only those that make plain data. Rules:

1. Plain data are None, booleans, integers, floats, strings, and lists, tuples and dictionaries of plain data, shared
   parts included, of protocols 0 to 5. Strings of Python 2 are read as Latin-1, of protocol 0 as ASCII.
2. Every other instruction is refused by name: among them all that import, call or rebuild (GLOBAL, STACK_GLOBAL, INST,
   OBJ, NEWOBJ, REDUCE, BUILD, EXT, persistent ids), also bytes, sets and buffers.
3. Keys of dictionaries are None, booleans, numbers or strings: a tuple's hash would go as deep as the file says.
4. A file that ends early, goes on after its end, or takes what is not on the stack is refused.

Source of the instructions: the documentation of ``pickletools`` (docs.python.org, CPython 3.11) and ``pickle``.
"""

import pickletools
from collections.abc import Callable
from typing import TypeAlias, cast

from pocketfleet.errors import InputError

__all__ = ["Plain", "load_plain"]

Plain: TypeAlias = "bool | int | float | str | list[Plain] | tuple[Plain, ...] | dict[Key, Plain] | None"
Key: TypeAlias = "bool | int | float | str | None"

# What the error calls the data that are read.
_PLAIN = "None, booleans, numbers, strings, lists, tuples and dictionaries"


def load_plain(data: bytes, *, name: str) -> Plain:
    """The plain data that a pickle describes.

    Args:
        data: the pickle's bytes.
        name: what errors call it.

    Raises:
        InputError: it holds anything but plain data, or is no whole pickle.
    """
    machine = _Machine()
    step, at = machine.step, 0
    try:
        for opcode, argument, position in pickletools.genops(data):
            at = position or 0
            step(opcode.name, argument)
        return machine.result(after_bytes=len(data) - at - 1)
    except InputError as exc:
        raise InputError(f"{name}: byte {at}: {exc}") from exc
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as exc:
        what = str(exc) or type(exc).__name__
        raise InputError(f"{name}: is no whole pickle of plain data: after byte {at}: {what}") from exc


class _Machine:
    """The stack, the marks on it (an item each), and the memo of things met before."""

    def __init__(self) -> None:
        self.stack: list[Plain] = []
        self.marks: list[int] = []
        self.memo: dict[int, Plain] = {}

    def step(self, name: str, argument: object) -> None:
        """Carry out one instruction."""
        if name in _PUSHES:
            self.stack.append(cast("Plain", argument))
            return
        action = _ACTIONS.get(name)
        if action is None:
            shown = f" {argument!r}" if isinstance(argument, str) else ""
            raise InputError(
                f"the pickle's instruction {name}{shown[:80]} is not carried out, as it may run code or make other "
                f"things than {_PLAIN}: convert the file to these where you trust it"
            )
        action(self, argument)

    def result(self, *, after_bytes: int) -> Plain:
        """What is left at the end, which so many bytes come after."""
        if after_bytes:
            raise ValueError(f"the pickle has ended and {after_bytes} bytes follow")
        if len(self.stack) != 1 or self.marks:
            raise ValueError(f"{len(self.stack)} things are left on the stack at the end, not one")
        return self.stack[0]

    def pop(self) -> Plain:
        """Take the top of the stack, but nothing from below the last mark."""
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError("an instruction takes what is below a mark")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Plain]:
        """Take all above the last mark, and the mark."""
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def top(self, kind: type) -> Plain:
        """The top of the stack, which must be a ``kind``."""
        if not isinstance(self.stack[-1], kind) or (self.marks and len(self.stack) <= self.marks[-1]):
            raise TypeError(f"an instruction wants a {kind.__name__}, which is not on top of the stack")
        return self.stack[-1]


def _nothing(_machine: _Machine, _argument: object) -> None:
    """PROTO, FRAME and STOP: ``genops`` heeds them."""


def _mark(machine: _Machine, _argument: object) -> None:
    machine.marks.append(len(machine.stack))


def _pop(machine: _Machine, _argument: object) -> None:
    # A mark counts as an item here, as in pickle itself.
    if machine.marks and len(machine.stack) == machine.marks[-1]:
        machine.marks.pop()
    else:
        machine.stack.pop()


def _pop_mark(machine: _Machine, _argument: object) -> None:
    machine.pop_to_mark()


def _put(machine: _Machine, argument: object) -> None:
    machine.memo[cast("int", argument)] = machine.stack[-1]


def _memoize(machine: _Machine, _argument: object) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _get(machine: _Machine, argument: object) -> None:
    machine.stack.append(machine.memo[cast("int", argument)])


def _append(machine: _Machine, _argument: object) -> None:
    item = machine.pop()
    cast("list[Plain]", machine.top(list)).append(item)


def _appends(machine: _Machine, _argument: object) -> None:
    items = machine.pop_to_mark()
    cast("list[Plain]", machine.top(list)).extend(items)


def _set_item(machine: _Machine, _argument: object) -> None:
    value, key = machine.pop(), machine.pop()
    cast("dict[Key, Plain]", machine.top(dict)).update(_pairs([key, value]))


def _set_items(machine: _Machine, _argument: object) -> None:
    items = machine.pop_to_mark()
    cast("dict[Key, Plain]", machine.top(dict)).update(_pairs(items))


def _pairs(items: list[Plain]) -> dict[Key, Plain]:
    keys = items[::2]
    for key in keys:
        if not isinstance(key, (str, int, float, type(None))):
            raise TypeError(f"a dictionary's key is a {type(key).__name__}; it must be None, a number or a string")
    return dict(zip(cast("list[Key]", keys), items[1::2], strict=True))


def _list(machine: _Machine, _argument: object) -> None:
    machine.stack.append(machine.pop_to_mark())


def _dict(machine: _Machine, _argument: object) -> None:
    machine.stack.append(_pairs(machine.pop_to_mark()))


def _tuple(machine: _Machine, _argument: object) -> None:
    machine.stack.append(tuple(machine.pop_to_mark()))


def _tuple_of(count: int) -> Callable[[_Machine, object], None]:
    def make(machine: _Machine, _argument: object) -> None:
        machine.stack.append(tuple(reversed([machine.pop() for _ in range(count)])))

    return make


def _make(value: Callable[[], Plain]) -> Callable[[_Machine, object], None]:
    return lambda machine, _argument: machine.stack.append(value())


# Instructions whose decoded argument is the thing itself.
_PUSHES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_ACTIONS: dict[str, Callable[[_Machine, object], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _nothing),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **{f"TUPLE{count}": _tuple_of(count) for count in (1, 2, 3)},
    "MEMOIZE": _memoize,
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _argument: machine.stack.append(machine.stack[-1]),
    "NONE": _make(lambda: None),
    "NEWTRUE": _make(lambda: True),
    "NEWFALSE": _make(lambda: False),
    "EMPTY_LIST": _make(list),
    "EMPTY_DICT": _make(dict),
    "EMPTY_TUPLE": _make(tuple),
    "LIST": _list,
    "DICT": _dict,
    "TUPLE": _tuple,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
}
