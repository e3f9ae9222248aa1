"""Recipes that come with fw, packaged as data."""
