"""Scripts for a checkout: measuring, studies, packing data, training the full-size models."""
