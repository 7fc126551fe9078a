"""What sending and receiving share: destinations, TLS, DIMSE status codes."""
