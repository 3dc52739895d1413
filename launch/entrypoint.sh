#!/usr/bin/env bash
# What the container runs: the engine for this GPU if there is none yet, then the daemon. Arguments go to the daemon.
set -euo pipefail
python -m engines.build --config "$CONFIG" --if-needed
exec python -m perception.daemon --config "$CONFIG" "$@"
