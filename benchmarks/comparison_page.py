"""Write pages of a large source and outputs at x2 and x4, and measure them.

    python benchmarks/comparison_page.py FOLDER [SOURCE]

The source is cut or repeated to 3000x2500 pixels; the outputs are its bicubic interpolation with
white noise of one stored unit, which compresses worse than what a network makes. With Chromium,
measures how long a page takes until the whole image is drawn.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cxrsr_cli.comparison.compare import Shown
from cxrsr_cli.comparison.page import write_page
from cxrsr_cli.dicom.decode import decode_compact
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.networks.resampling import upsample
from tests.helpers.browser import browser

ROWS, COLUMNS = 2500, 3000
SCALES = (2, 4)
DRAWN = "[performance.getEntriesByName('drawn')[0].startTime, performance.now()]"


def main(folder: Path, path: Path) -> None:
    """Write the pages and print size and times."""
    source = read_source(path)
    pixels = decode_compact(source)[0]
    repeats = [
        -(-wanted // side) for wanted, side in zip((ROWS, COLUMNS), pixels.shape, strict=True)
    ]
    large = np.tile(pixels, repeats)[:ROWS, :COLUMNS]
    original = Shown(path, source, large)
    print("| scale | page, MB | written, s | first picture, s | all read, s |")
    print("|---|---|---|---|---|")
    for scale in SCALES:
        page = folder / f"x{scale}.html"
        started = time.perf_counter()
        write_page(page, [original, Shown(path, source, enlarged(large, scale), scale)])
        written = time.perf_counter() - started
        times = opened(page) if shutil.which("chromium") else ("-", "-")
        print(
            f"| {scale} | {page.stat().st_size / 1e6:.1f} | {written:.1f} | {' | '.join(times)} |"
        )


def enlarged(pixels: NDArray[np.integer], scale: int) -> NDArray[np.integer]:
    """Return the bicubic interpolation with white noise."""
    values = torch.from_numpy(pixels.astype(np.float32))[None, None]
    large = upsample(values, scale)
    noise = torch.randn(large.shape, generator=torch.Generator().manual_seed(0))
    large = (large + noise).round_().clamp_(int(pixels.min()), int(pixels.max()))
    return large[0, 0].numpy().astype(pixels.dtype)


def opened(page: Path) -> tuple[str, str]:
    """Return seconds until the whole image is drawn, and until the page is read."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as files,
        browser(Path(files)) as window,
    ):
        window.open(page)
        first, all_read = window.run(DRAWN)
    return f"{first / 1000:.2f}", f"{all_read / 1000:.2f}"


if __name__ == "__main__":
    example = Path(__file__).parent.parent / "examples" / "chest-1024.dcm"
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]) if len(sys.argv) > 2 else example)
