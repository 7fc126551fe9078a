"""The devices on which a test runs: the CPU everywhere, and a GPU where there is one."""

import pytest

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

on_each_device = pytest.mark.parametrize("device", DEVICES)
