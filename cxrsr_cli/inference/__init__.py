"""Run a network over an image of any size."""
