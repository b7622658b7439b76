"""The bench: the command line."""
