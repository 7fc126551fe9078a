"""Restore: from stored values to more of them."""
