"""What the programs in here need beyond what the vehicle has: the extra `engines`."""

from __future__ import annotations

import sys
from importlib import import_module


def require(*modules: str) -> None:
    """End the program with one line where any of these cannot be imported."""
    missing = [name for name in modules if not _imports(name)]
    if missing:
        print(f"error: not installed: {', '.join(missing)}; pip install -e '.[engines]'", file=sys.stderr)
        sys.exit(2)


def _imports(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True
