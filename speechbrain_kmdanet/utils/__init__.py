"""Metrics of separation and other helpers."""
