#!/usr/bin/env bash
# What the container runs: the engine for this GPU if there is none yet, then the daemon. Arguments go to the daemon.
set -euo pipefail
# Whatever configs/ says: plans are kept in the volume, and the kernels were compiled into the image.
here=(--set engine.directory=/var/lib/perception/plans --set gpu.kernels=/opt/perception/kernels)
python -m engines.build --config "$CONFIG" "${here[@]}" --if-needed
exec python -m perception.daemon --config "$CONFIG" "${here[@]}" "$@"
