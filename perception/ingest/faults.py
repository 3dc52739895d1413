"""Kept while sources move to `perception.faults`."""

from perception.faults import Faults as Faults  # noqa: PLC0414
