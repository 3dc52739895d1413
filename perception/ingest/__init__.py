"""Frames in: recorded drives, decoded and synchronised into frame sets.

`open_drive` turns a path into a `Drive` (an MCAP recording, a video file, a folder of images); `Replay` plays one as a
`Source`: packets in the order they arrived, decoded in workers (`decode`), grouped by `Synchroniser`.
"""
