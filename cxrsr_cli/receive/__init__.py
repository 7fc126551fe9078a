"""Receive instances from peers directly to the disk, also from hostile ones."""
