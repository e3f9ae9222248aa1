"""Annotators that come with fw."""
