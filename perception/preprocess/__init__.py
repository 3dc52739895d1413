"""Images to the detector's input tensor."""
