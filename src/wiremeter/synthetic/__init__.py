"""Simulated traffic, and the totals it must give."""
