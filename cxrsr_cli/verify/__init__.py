"""Verify: audit a derived object against its source, from the two files alone."""
