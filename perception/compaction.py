"""Launches of select.cu, which detect and nms both choose with: stream compaction, its count on the device."""
