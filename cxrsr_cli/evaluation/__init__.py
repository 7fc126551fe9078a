"""Judge methods on images whose truth is known."""
