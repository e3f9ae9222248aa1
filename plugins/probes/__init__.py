"""Probes that come with fw."""
