"""Run a batch on the workers of a Dask cluster."""
