"""Which share of the audit's bounds outputs of real chests reach.

    python benchmarks/audit_bounds.py --side 256 data/cxr/nih/test data/dicom/chest

Upscales a crop of each image by the bundled default model and prints, for each scale and noise
reduction, the largest ratio to the bound of `cxrsr_cli.verify.pixels` over all images. Above 1 is a
false alarm.
"""

import argparse
from pathlib import Path

import numpy as np

from cxrsr_cli.images.image_files import find_images, read_image
