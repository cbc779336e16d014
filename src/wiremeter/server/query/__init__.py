"""Questions about what is stored: each becomes SQL, and its answer comes as Arrow."""
