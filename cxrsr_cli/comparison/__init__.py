"""Show an output beside its source."""
