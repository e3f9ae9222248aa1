"""What the commands beside `fw run` do."""
