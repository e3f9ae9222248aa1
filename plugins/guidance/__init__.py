"""Guidance modes that come with fw."""
