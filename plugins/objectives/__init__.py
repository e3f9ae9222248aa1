"""Objectives that come with fw."""
