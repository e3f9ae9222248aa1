"""The machine that a process runs on: its signals, its standard streams, its global state."""
