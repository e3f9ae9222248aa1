"""Trackers that come with fw."""
