"""Backbones that come with fw."""
