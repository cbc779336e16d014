"""Bytes of one protocol in, what they say out. No decoder knows of another flow, or of time."""
