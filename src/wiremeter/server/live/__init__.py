"""What was stored just now, for those who watch."""
