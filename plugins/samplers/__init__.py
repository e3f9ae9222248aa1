"""Samplers that come with fw."""
