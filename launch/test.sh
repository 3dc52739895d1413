#!/usr/bin/env bash
# Lint, types, import contracts, tests. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"
bootstrap requirements-dev.lock
export PATH=$PWD/.venv/bin:$PATH
ruff check .
ruff format --check .
mypy
lint-imports
exec python -m pytest "$@"
