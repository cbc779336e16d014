"""The agents of a server: what is known of each, and all of them as metrics."""
