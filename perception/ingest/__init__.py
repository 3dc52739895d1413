"""Frames in: recorded drives and cameras, decoded and synchronised into frame sets."""
