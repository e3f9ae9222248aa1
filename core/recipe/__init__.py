"""What to compare: the YAML file, its model, and all that can be checked before anything is run."""
