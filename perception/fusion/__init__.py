"""Detections of all cameras to tracks: lifting to 3-D, association, tracking.

`camera_fusion.CameraFusion` is the stage. `tracker.Tracker` also serves by itself: it takes 3-D measurements of any
sensor, such as boxes that a LiDAR detector has found, as `messages.Measurements`.
"""
