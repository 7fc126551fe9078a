"""Evaluate methods on images with a known original."""
