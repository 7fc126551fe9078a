"""Time and memory of one job in a process of its own, as JSON.

    python -m benchmarks.measure_job INPUT OUTPUT --scale 4 [--memory BYTES]

The peak is that of the process's resident memory, less what stood when
everything was imported and the weights were loaded.
"""

import argparse
import json
import time
from pathlib import Path

from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.evaluation.resource_usage import measure_usage
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, find_model
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler


def main() -> None:
    """Do the job and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--memory", type=int)
    arguments = parser.parse_args()
    model = find_model(DEFAULT_MODEL, arguments.scale)
    options = UpscaleOptions(device="cpu", memory=arguments.memory, overwrite=True)
    upscaler = Upscaler.load(model, options)
    with measure_usage(upscaler.predictor.device) as usage:
        start = time.perf_counter()
        opened = upscaler.read(Job(arguments.source, arguments.target))
        read = time.perf_counter()
        restored = upscaler.upscale(opened)
        made = time.perf_counter()
        upscaler.write(restored)
        written = time.perf_counter()
    itemsize = PixelFormat.from_dataset(opened.source.dataset).dtype.itemsize
    plan = upscaler.predictor.plan(*opened.shape, itemsize)
    print(
        json.dumps(
            {
                "read": read - start,
                "restore": made - read,
                "write": written - made,
                "peak_bytes": usage.peak_bytes,
                "predicted_bytes": plan.peak_bytes,
                "rows": plan.rows,
                "overlap": plan.overlap,
            }
        )
    )


if __name__ == "__main__":
    main()
