"""Scripts that make the models."""
