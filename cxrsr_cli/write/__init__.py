"""Write: whole files, verified, under names that were free."""
