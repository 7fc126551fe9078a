"""Draw input, bicubic, cxrsr and original side by side, each with its window.

python examples/compare.py input.dcm upscaled.dcm original.dcm picture.png
"""

import sys
from pathlib import Path

import numpy as np
import pydicom
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from pydicom.pixels.utils import pixel_array

from cxrsr_cli.metrics.psnr_ssim import psnr
from cxrsr_cli.networks.resampling import upsample

Picture = NDArray[np.float64]

# The detail, as shares of the image's height and width.
ROWS, COLUMNS = (0.31, 0.52), (0.19, 0.40)


def main(input_path: Path, output_path: Path, original_path: Path, picture_path: Path) -> None:
    """Write the picture and print what it shows."""
    low, output, original = (
        pydicom.dcmread(path) for path in (input_path, output_path, original_path)
    )
    scale = output.Rows // low.Rows
    values = torch.from_numpy(pixel_array(low).astype(np.float32))[None, None]
    bicubic = upsample(values, scale).round_().clamp_(0, 2**low.BitsStored - 1)[0, 0].numpy()
    panels = {
        f"input {low.Columns}x{low.Rows}\nnearest": rendered(low).repeat(scale, 0).repeat(scale, 1),
        f"bicubic {output.Columns}x{output.Rows}": rendered(low, bicubic),
        f"cxrsr x{scale}": rendered(output),
        "original": rendered(original),
    }
    draw(panels, picture_path)
    peak = float(2**original.BitsStored - 1)
    reference = pixel_array(original).astype(np.float32)
    for name, pixels in (("bicubic", bicubic), ("cxrsr", pixel_array(output))):
        quality = psnr(tensor(pixels), tensor(reference), peak=peak, border=scale)
        print(f"{name:>8}: {quality:.2f} dB PSNR to the original")
    print(f"picture: {picture_path}")


def tensor(pixels: NDArray[np.number]) -> torch.Tensor:
    """Return ``(1, 1, H, W)`` float32."""
    return torch.from_numpy(pixels.astype(np.float32))[None, None]


def rendered(dataset: pydicom.Dataset, pixels: NDArray[np.number] | None = None) -> Picture:
    """Return the picture as a viewer shows it, bone bright, within [0, 1]."""
    stored = pixel_array(dataset) if pixels is None else pixels
    shown = apply_windowing(apply_modality_lut(stored, dataset), dataset).astype(np.float64)
    shown /= 2**dataset.BitsStored - 1  # a window maps to the whole range of stored values
    return np.asarray(1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown)


def draw(panels: dict[str, Picture], path: Path) -> None:
    """Draw the whole images above, a detail below."""
    figure = Figure(figsize=(4 * len(panels), 8.6))
    axes = figure.subplots(2, len(panels))
    for (top, bottom), (title, panel) in zip(axes.T, panels.items(), strict=True):
        height, width = panel.shape
        rows = slice(int(ROWS[0] * height), int(ROWS[1] * height))
        columns = slice(int(COLUMNS[0] * width), int(COLUMNS[1] * width))
        top.imshow(panel, cmap="gray", vmin=0, vmax=1)
        top.set_title(title)
        bottom.imshow(panel[rows, columns], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for axis in (top, bottom):
            axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
