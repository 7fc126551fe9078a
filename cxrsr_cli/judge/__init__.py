"""Judge: how close a restored radiograph is to the original."""
