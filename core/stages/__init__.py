"""What is done: one file for each kind of stored work."""
