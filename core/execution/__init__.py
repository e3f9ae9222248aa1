"""What does a plan's stages: this machine, teams of processes, a cluster."""
