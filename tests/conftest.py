from __future__ import annotations

from hypothesis import settings

# Tests assert behaviour, not time: a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
