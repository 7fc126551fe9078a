"""Measure size and time of an output in each lossless transfer syntax.

``python -m benchmarks.output_syntaxes FILE [ROWS]`` upscales the middle ROWS x ROWS pixels of a
radiograph by the default model at x4, encodes the result in each syntax, and prints bits a pixel,
and the size of a 7-megapixel radiograph at x4 with the CPU time of its encoding.
"""

import sys
import time
from io import BytesIO

import pydicom
from pydicom.pixels.utils import set_pixel_data

import cxrsr_cli
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax, resolve_transfer_syntax

_SCALE = 4
_OUTPUT_MEGAPIXELS = 7 * _SCALE**2


def main() -> None:
    """Print a row for each syntax."""
    path, side = sys.argv[1], int((sys.argv[2:] or ["256"])[0])
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array
    top, left = ((length - side) // 2 for length in pixels.shape)
    middle = pixels[top : top + side, left : left + side]
    bits, photometric = dataset.BitsStored, dataset.PhotometricInterpretation
    set_pixel_data(dataset, middle.copy(), photometric, bits, generate_instance_uid=False)
    model = cxrsr_cli.load_model(scale=_SCALE, device="cpu", transfer_syntax="explicit")
    derived = model.upscale_dataset(dataset)
    megapixels = derived.Rows * derived.Columns / 1e6
    print(f"{path}: {side}x{side} of {bits} bits at x{_SCALE}")
    print("| syntax | bits a pixel | 7 Mpixel at x4 | encoded in CPU time of |")
    print("|---|---|---|---|")
    for wanted in OutputTransferSyntax:
        if wanted is OutputTransferSyntax.SAME:
            continue
        syntax = resolve_transfer_syntax(wanted, derived.file_meta.TransferSyntaxUID)
        one = pydicom.dcmread(_encoded(derived))
        started = time.process_time()
        if syntax.is_compressed:
            one.compress(syntax, generate_instance_uid=False)
        seconds = (time.process_time() - started) / megapixels * _OUTPUT_MEGAPIXELS
        share = len(one.PixelData) / 1e6 / megapixels
        size = f"{share * _OUTPUT_MEGAPIXELS:.0f} MB"
        print(f"| {wanted} | {8 * share:.2f} | {size} | {seconds:.1f} s |", flush=True)


def _encoded(dataset: pydicom.FileDataset) -> BytesIO:
    file = BytesIO()
    dataset.save_as(file)
    file.seek(0)
    return file


if __name__ == "__main__":
    main()
