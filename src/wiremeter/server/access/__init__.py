"""Who may what: tokens, certificates, and what either permits."""
