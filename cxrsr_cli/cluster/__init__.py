"""Many machines: the same work on the workers of a Dask cluster."""
