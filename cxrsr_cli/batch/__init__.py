"""Batch: the main job over many files, unattended."""
