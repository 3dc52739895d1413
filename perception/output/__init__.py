"""What a run leaves behind: tracks, recording, summary, trace, video."""
