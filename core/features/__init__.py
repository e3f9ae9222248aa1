"""What networks make of images, read and judged."""
