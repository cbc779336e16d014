"""The live meter: which devices, attached how, read when, and checked against the kernel's own counters."""
