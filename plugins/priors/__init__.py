"""Priors that come with fw."""
