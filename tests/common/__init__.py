"""Tests of `cxrsr_cli.common`."""
