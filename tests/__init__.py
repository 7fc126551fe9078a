"""The specification of cxrsr."""
