"""What agents send and servers take: the tables of a batch, its identity, and what heartbeats say. Pure."""
