"""Mutation of real files: every case ends in a documented way."""
