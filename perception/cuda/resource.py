"""What all resources of the GPU have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

R = TypeVar("R", bound="Resource")


class Resource(ABC):
    """A context manager over `close`, which releases it while the GPU's context is current."""

    def __enter__(self: R) -> R:  # noqa: PYI019 (Python 3.10 has no Self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Release it; a second call does nothing."""
