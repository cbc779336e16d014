"""Hosts in network namespaces: what is sent between them is known, so what the meter says can be judged."""
