"""Blocks that make up whole systems."""
