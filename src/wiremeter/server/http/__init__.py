"""The server's HTTP: who may connect, and what is asked and sent where."""
