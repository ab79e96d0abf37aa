"""Clustering, time-frequency transforms and masks."""
