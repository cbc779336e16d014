"""What is released, tried where none of the tools that built it are: `make release-test`."""
