"""Families of networks, their configurations, and files of weights."""
