"""Asks a server: the same questions as its HTTP interface, with Arrow tables as answers."""
