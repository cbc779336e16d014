"""Batches to a server: as Arrow streams, kept in a spool until they have arrived. Loaded by agents that ship only."""
