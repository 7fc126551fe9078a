"""Scripts for a checkout: measuring, packing data, training on a lent machine."""
