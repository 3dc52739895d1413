#!/usr/bin/env bash
# Pin every dependency anew, for all platforms and Python versions, with hashes: needs uv (pip install uv).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
pin() {
    uv pip compile pyproject.toml --universal --python-version 3.10 --generate-hashes --no-header --no-annotate --quiet "$@"
}
pin --extra dev --output-file requirements-dev.lock
pin --constraint <(sed -E 's/ *\\$//; /--hash/d' requirements-dev.lock) --output-file requirements.lock
