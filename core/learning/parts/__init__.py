"""What a training does beside drawing batches and taking steps: a file for each."""
