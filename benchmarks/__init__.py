"""Measurements, each one command; docs/ names them beside the figures."""
