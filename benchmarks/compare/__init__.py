"""wiremeter beside what it replaces: several meters, one traffic source, one device, one run. `make compare`."""
