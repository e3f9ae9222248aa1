"""Autoencoders that come with fw."""
