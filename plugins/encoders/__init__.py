"""Encoders that come with fw."""
