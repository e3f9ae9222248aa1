"""Datasets that come with fw."""
