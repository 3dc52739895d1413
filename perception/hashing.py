"""What a file is, whatever it is called."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(path: Path | None) -> dict[str, Any] | None:
    """Where a file is, from wherever that is read, and what it is."""
    return None if path is None else {"path": str(path.resolve()), "sha256": sha256(path)}
