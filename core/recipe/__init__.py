"""What to compare: the YAML file, its model, and all that can be told of it before anything is run."""
