"""Multi-camera perception with an enforced latency budget.

A source (`ingest`) yields a `FrameSet` per tick; `pipeline` submits each frame to its camera's `channel`
(`preprocess` -> `detect` -> `nms`), collects the detections, hands them to `fusion`, and publishes the
`TrackSet`; `output` records what happened. `stages` holds the protocols between them, `messages` what flows,
`budget` what it may cost, `backends` which implementation runs on this machine.
"""

__version__ = "0.1.0"
