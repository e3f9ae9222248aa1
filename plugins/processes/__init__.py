"""Processes that come with fw."""
