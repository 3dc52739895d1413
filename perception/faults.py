"""What went wrong and was survived: one line per kind of fault, however often it happens."""

from __future__ import annotations

from typing import Final

_MAX_KINDS: Final = 100


class Faults:
    """The first fault of each kind in full, the others like it as a number: memory stays bounded."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, ...], str] = {}
        self._count: dict[tuple[str, ...], int] = {}
        self._beyond = 0

    def add(self, kind: tuple[str, ...], line: str) -> None:
        """Note a fault; `kind` is what makes two faults alike, such as the camera and the reason."""
        if kind in self._first:
            self._count[kind] += 1
        elif len(self._first) < _MAX_KINDS:
            self._count[kind] = 1
            self._first[kind] = line
        else:
            self._beyond += 1

    def once(self, line: str) -> None:
        """Note a fault that stays the same however often it is met, such as where a file is damaged."""
        if (line,) not in self._first:
            self.add((line,), line)

    def lines(self) -> list[str]:
        """A line each, in the order in which they first happened."""
        lines = [
            line if self._count[kind] == 1 else f"{line} (and {self._count[kind] - 1} more like it)"
            for kind, line in list(self._first.items())  # another thread may be adding
        ]
        return [*lines, f"{self._beyond} more faults of other kinds"] if self._beyond else lines
