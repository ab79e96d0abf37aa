"""Embedding networks and the maskers built on them."""
