#!/usr/bin/env bash
# Lint, types, import contracts, tests. Arguments go to pytest.
# With --gpu as the first: the tests that need an NVIDIA GPU and nothing else; see tests/gpu/README.md.
source "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"
bootstrap requirements-dev.lock
export PATH=$PWD/.venv/bin:$PATH
if [ "${1:-}" = --gpu ]; then
    shift
    exec python -m pytest -m gpu -rs tests/gpu tests/kernels tests/cuda "$@"
fi
ruff check .
ruff format --check .
mypy
lint-imports
exec python -m pytest "$@"
