"""Scripts for a checkout: measuring, studies, packing data, training on a lent machine."""
