"""Compare upscaling with codecs in a process of their own and with codecs in the same process.

    python -m benchmarks.codec_process [--files 200] [--repeats 3] [--model rir-s]

Upscales pieces of 512x512 of examples/chest-1024.dcm in every compressed syntax that can be
written here and uncompressed, both ways in turns. Other work on the machine can only add to the
time of a file, so the smallest of the repeats counts. Prints how much longer the separate process
takes, and how long it takes to start. A small model shows the difference best.
"""

import argparse
import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pydicom
import torch
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from benchmarks.machine_info import machine
from benchmarks.study_config import ROOT
from benchmarks.timing import clock
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom import codec_worker, decode
from cxrsr_cli.dicom.codec_process import CodecProcess, CodecRequest
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.evaluation.paired_statistics import PairedDifference
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler

SIDE = 512
SOURCE = ROOT / "examples" / "chest-1024.dcm"
SYNTAXES = (ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1)


class SameProcess:
    """Runs codecs in this process, as a `CodecProcess` would elsewhere."""

    def run(self, request: CodecRequest) -> tuple[dict[str, Any], bytes]:
        """Decode."""
        header, data = codec_worker.decode(request.syntax, dict(request.options), request.data)
        return header | {"damaged": False}, data


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="rir-s", help="name or file of a model at x2")
    arguments = parser.parse_args()
    upscaler = Upscaler.load(find_model(arguments.model, 2), UpscaleOptions(scale=2, device="cpu"))
    ways: dict[str, SameProcess | CodecProcess] = {"same": SameProcess(), "other": CodecProcess()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.dcm"
        for path in make_files(Path(folder), arguments.files):
            spent = dict.fromkeys(ways, math.inf)
            for _ in range(arguments.repeats):
                for name, codecs in ways.items():
                    with patch.object(decode, "CODECS", codecs):
                        _, once = clock(upscaler.upscale_file, path, target)
                    spent[name] = min(spent[name], once)
                    target.unlink()
            for name, once in spent.items():
                seconds[name].append(once)
        start = min(clock(start_process, path)[1] for _ in range(3))
    same, other = seconds["same"], seconds["other"]
    change = PairedDifference.of(
        [1000 * (b - a) for a, b in zip(same, other, strict=True)], larger_is_better=False
    )
    print(
        f"{len(same)} files of {SIDE}x{SIDE}, {upscaler.model.name} at x2, "
        f"smallest of {arguments.repeats}: {sum(same):.1f} s in the same process, "
        f"{sum(other):.1f} s with another one ({100 * (sum(other) / sum(same) - 1):+.1f} %): "
        f"{change.mean:+.1f} ms a file ({change.low:+.1f} to {change.high:+.1f}, 95 %), "
        f"and {start:.1f} s once for its start. {machine(torch.device('cpu'))}"
    )


def start_process(path: Path) -> None:
    """Decode a file with a new process."""
    codecs = CodecProcess()
    with patch.object(decode, "CODECS", codecs):
        decode.decode(read_source(path))
    codecs.close()


def make_files(folder: Path, count: int) -> Iterator[Path]:
    """Make one file after the other; each takes the place of the last one."""
    for index in range(count):
        with quiet_libraries():
            dataset = pydicom.dcmread(SOURCE)
            rows, columns = dataset.Rows, dataset.Columns
            top, left = index * 37 % (rows - SIDE), index * 53 % (columns - SIDE)
            part = dataset.pixel_array[top : top + SIDE, left : left + SIDE]
            dataset.PixelData = part.tobytes()
            dataset.Rows = dataset.Columns = SIDE
            yield encode(dataset, SYNTAXES[index % len(SYNTAXES)], folder / "in.dcm")


def encode(dataset: pydicom.FileDataset, syntax: UID, path: Path) -> Path:
    """Write a file in a syntax; JPEG lossless by DCMTK, if it is there."""
    program = shutil.which("dcmcjpeg")
    if syntax == JPEGLosslessSV1:
        dataset.save_as(path)
        if program:
            subprocess.run([program, "+e1", path, path], check=True)
    else:
        if syntax.is_compressed:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    return path


if __name__ == "__main__":
    main()
