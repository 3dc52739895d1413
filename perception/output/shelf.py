"""The directory of the flight recorder's events: numbered, and no larger than its quota."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from perception.output.files import unwritable

_NAME: Final = re.compile(r"(\d{6,12})-\w+-[\w-]+")
_LONGEST_SLUG: Final = 40


class Shelf:
    """Where events are put: each a directory ``NUMBER-TIME-REASON``.

    Age is in the number, not in the time: clocks jump. What does not bear such a name is not touched. Raises
    `OutputError` wherever the file system refuses.
    """

    def __init__(self, directory: Path, quota_bytes: int) -> None:
        self._directory = directory
        self._quota = quota_bytes
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._sizes = {
                path.name: _size(path)
                for path in directory.iterdir()
                if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
            }
        except OSError as error:
            raise unwritable(directory, error) from None
        self._number = max(map(_number, self._sizes), default=0)

    def place(self, reason: str, stamp_ns: int) -> Path:
        """A directory for a new event, to be made; `stamp_ns` on the time line of the data."""
        self._number += 1
        at = datetime.fromtimestamp(stamp_ns // 1_000_000_000, timezone.utc)
        slug = re.sub(r"[^a-z0-9]+", "-", reason.lower())[:_LONGEST_SLUG].strip("-")
        return self._directory / f"{self._number:06d}-{at:%Y%m%dT%H%M%SZ}-{slug or 'event'}"

    def make_room(self, newest: Path) -> bool:
        """Remove the oldest events until the rest fits; False when the newest, which stays, is too large by itself."""
        try:
            self._sizes[newest.name] = _size(newest)
            for name in surplus(self._sizes, self._quota):
                with suppress(FileNotFoundError):  # someone else took it away
                    shutil.rmtree(self._directory / name)
                del self._sizes[name]
        except OSError as error:
            raise unwritable(self._directory, error) from None
        return self._sizes[newest.name] <= self._quota


def surplus(sizes: Mapping[str, int], quota: int) -> list[str]:
    """Which events must go for the rest to take no more than `quota` bytes: the oldest, but never the newest."""
    by_age = sorted(sizes, key=_number)
    total = sum(sizes.values())
    gone = []
    for name in by_age[:-1]:
        if total <= quota:
            break
        gone.append(name)
        total -= sizes[name]
    return gone


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())
