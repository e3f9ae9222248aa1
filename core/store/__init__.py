"""Finished stages on disk, and which of them can be built on."""
