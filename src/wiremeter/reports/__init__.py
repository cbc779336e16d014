"""What a batch looks like to a reader: documents, texts, findings, units. Views and sinks share it."""
