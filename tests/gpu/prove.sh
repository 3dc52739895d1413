#!/usr/bin/env bash
# Everything that a machine with a GPU can prove, in one command: ./tests/gpu/prove.sh DIRECTORY
# The logs go there; exits with 1 where something failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=$(realpath -m "${1:?name a directory for the logs}")
mkdir -p "$out"
failed=0
step() {
    local name=$1
    shift
    echo "== $name"
    "$@" 2>&1 | tee "$out/$name.log" || failed=1
}
python=.venv/bin/python
step machine nvidia-smi
step doctor "$python" -m perception.doctor --config base.yaml
step tests ./launch/test.sh --gpu --junit-xml "$out/tests.xml"
step bench "$python" -m perception.bench --device cuda --ticks 1000 --json "$out/bench.json"
exit "$failed"
