"""Reading payloads without power: in a process of its own that can compute, answer, and nothing else."""
