"""Tests of `cxrsr_cli.cluster`."""
