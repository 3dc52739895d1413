"""Files that get their final name only when they are whole."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from typing import Final

from perception.errors import OutputError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class AtomicFile:
    """A binary file written as ``NAME.partial`` and given its name on `close`.

    A process that is killed leaves the partial file, with all that was flushed. Raises `OutputError` wherever the
    file system refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.partial.open("wb")
        except OSError as error:
            raise unwritable(path, error) from None

    def write(self, data: bytes) -> int:
        """Append; returns the number of bytes."""
        try:
            return self._file.write(data)
        except OSError as error:
            raise unwritable(self.path, error) from None

    def flush(self) -> None:
        """Hand what was written to the operating system, so that it outlives this process."""
        try:
            self._file.flush()
        except OSError as error:
            raise unwritable(self.path, error) from None

    def tell(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    @property
    def closed(self) -> bool:
        """Whether it has got its name."""
        return self._file.closed

    def abandon(self) -> None:
        """Close without the name: what could be written stays as the partial file."""
        with suppress(OSError):
            self._file.close()

    def discard(self) -> None:
        """Close, and leave nothing."""
        self.abandon()
        with suppress(OSError):
            self.partial.unlink()

    def close(self) -> None:
        """Close and rename; closing twice does nothing more."""
        if self.closed:
            return
        try:
            self._file.close()
            self.partial.replace(self.path)
        except OSError as error:
            raise unwritable(self.path, error) from None


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file at once, atomically; raises `OutputError`."""
    file = AtomicFile(path)
    file.write(data)
    file.close()


def unwritable(path: Path, error: OSError) -> OutputError:
    """One line for a place that cannot be written to."""
    exists = isinstance(error, FileExistsError)  # so says mkdir where a file is in the way
    reason = f"{path.parent} is not a directory" if exists else error.strerror or str(error)
    remedy = "make room there, or name another place" if error.errno in _FULL else "name another place"
    return OutputError(f"{path}: cannot be written: {reason}; {remedy} in the config, or with --out")
