"""A recipe as a graph of stages that arms share."""
