"""`wiremeter live`: the interactive view, and the same facts as plain text and JSON."""
