"""Live cameras: devices that are opened and read, each on a thread of its own that opens it again when it fails.

`camera` is what a device must give, `feed` the thread and what it watches for, `mailbox` where the latest frame lies;
`v4l2`, `gstreamer` and `av` (RTSP, files) are the devices; `open_cameras`, one level up, chooses among them.
"""
