"""Arithmetic of a network, named without importing torch."""

from enum import StrEnum


class Precision(StrEnum):
    """Arithmetic of the network; everything around it is float32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
