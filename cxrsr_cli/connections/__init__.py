"""What sender and receiver share: destinations, TLS, DIMSE status codes."""
