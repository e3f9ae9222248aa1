"""Metrics that come with fw."""
