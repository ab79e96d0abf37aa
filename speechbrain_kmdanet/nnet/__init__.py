"""Attractor estimators and losses."""
