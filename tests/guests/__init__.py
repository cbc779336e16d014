"""Other kernels than the running one: booted in software, with the meter inside. On demand: `make kernels`."""
