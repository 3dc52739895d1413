"""Tensors to candidates: runtimes, and the heads that decode their outputs."""
