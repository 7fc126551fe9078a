"""Derive: from a source object and new pixels to a derived object."""
