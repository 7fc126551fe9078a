"""Verify derived objects against their sources."""
