#!/usr/bin/env bash
# Replay a drive: ./launch/replay.sh --config cpu.yaml --replay DRIVE.mcap --model MODEL.onnx --out runs/NAME
# All arguments go to python -m perception.run; paths are relative to where you stand.
here=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"
bootstrap requirements.lock
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
python=$PWD/.venv/bin/python
cd "$here"
exec "$python" -m perception.run "$@"
