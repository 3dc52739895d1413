"""Detections of all cameras to tracks: lifting to 3-D, association, tracking."""
