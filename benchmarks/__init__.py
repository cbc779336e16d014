"""What metering costs: nanoseconds per packet, milliseconds per drain, the agent's CPU and memory. `make bench`."""
