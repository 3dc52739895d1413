#!/usr/bin/env bash
# Make .venv from what wheels.sh collected, without a network: ./tests/gpu/install.sh DIRECTORY
set -euo pipefail
wheels=$(realpath "${1:?name the directory of the wheels}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
"${PYTHON:-python3}" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }
for part in base onnxruntime dali rtx; do
    [ -d "$wheels/$part" ] || continue
    if [ "$part" = onnxruntime ]; then
        pip uninstall --yes onnxruntime # the two are in each other's place
    fi
    pip install --no-index --no-deps "$wheels/$part"/*.whl
done
sha256sum requirements.lock requirements-dev.lock > .venv/.installed # as launch/bootstrap.sh leaves it
