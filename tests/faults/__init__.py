"""Faults, injected into a daemon that runs: ``python -m tests.faults`` writes the table of what came of them."""
