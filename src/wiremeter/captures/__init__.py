"""Capture files: reading them, and sending their frames through an engine."""
