"""Measure what an archive's simulation needs to know, for docs/scale.md.

    python -m benchmarks.file_costs CHESTS

CHESTS is a folder of real radiographs. A minute or two of two cores. The table
that it writes is what `benchmarks.archive_estimate` reads.
"""

import argparse
import json
import sqlite3
import tempfile
import time
import tracemalloc
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean, median

import pydicom
import torch
from distributed import Client, LocalCluster

from benchmarks.machine_info import machine
from benchmarks.run_study import fill
from benchmarks.study_config import ROOT
from benchmarks.synthetic_radiographs import write
from cxrsr_cli.batch.ledger import Ledger, OutputKey
from cxrsr_cli.batch.report import file_record
from cxrsr_cli.batch.result import FileStatus, Result, Timing
from cxrsr_cli.common.quiet_libraries import quiet_dask
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax
from cxrsr_cli.evaluation.tables import Table
from cxrsr_cli.inference.agreement import AgreementDeviation
from cxrsr_cli.inference.memory_plan import MemoryPlan
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, find_model
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler

PAGE = ROOT / "docs" / "scale.md"
SIDE = 1024
CUT = 512
"""Rows and columns cut out of the middle of a chest, to be compressed."""
MANY = 20_000
FEW = 200


@dataclass(frozen=True, slots=True)
class Costs:
    """What one file takes. Each field's unit is in its name.

    Attributes
    ----------
    core_seconds_per_megapixel_x2, core_seconds_per_megapixel_x4 : float
        Of an input's megapixel, from reading to the renamed file.
    jpegls_x2, jpegls_x4 : float
        Bytes of a file's pixels in JPEG-LS, to those without compression.
    jpegls_in : float
        The same of the radiographs themselves.
    tasks_per_second : float
        That a scheduler hands out, of tasks that do nothing.
    ledger_files_per_second : float
        Announced and recorded, each flushed to the disk.
    ledger_bytes, report_bytes, client_bytes : float
        Of one file: in the ledger, in the report, and in the client's memory.
    """

    core_seconds_per_megapixel_x2: float
    core_seconds_per_megapixel_x4: float
    jpegls_x2: float
    jpegls_x4: float
    jpegls_in: float
    tasks_per_second: float
    ledger_files_per_second: float
    ledger_bytes: float
    report_bytes: float
    client_bytes: float

    @classmethod
    def read(cls, page: str) -> "Costs":
        """Take them from the table of a page."""
        table = page.partition("<!-- table costs -->")[2].partition("<!-- end -->")[0]
        cells = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
        found = {line[1].strip(" `"): float(line[2].replace(",", "")) for line in cells}
        return cls(**found)


def main() -> None:
    """Measure all, and fill the table in."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chests", type=Path)
    costs = measure(parser.parse_args().chests)
    rows = [[f"`{each.name}`", f"{getattr(costs, each.name):.4g}"] for each in fields(costs)]
    text = Table([("cost", 0), ("", 0)], rows).as_markdown()
    fill(PAGE, "costs", f"{text}\n\n{machine(torch.device('cpu'))}")
    print(text)


def measure(chests: Path) -> Costs:
    """Measure all, with real chests to be compressed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        half, quarter = (core_seconds(folder, scale) for scale in (2, 4))
        (low, double), (_, fourfold) = (compressed(folder, chests, scale) for scale in (2, 4))
        per_second, size = ledger(folder)
        told, kept = accounts()
        return Costs(
            core_seconds_per_megapixel_x2=half,
            core_seconds_per_megapixel_x4=quarter,
            jpegls_x2=double,
            jpegls_x4=fourfold,
            jpegls_in=low,
            tasks_per_second=scheduled(folder),
            ledger_files_per_second=per_second,
            ledger_bytes=size,
            report_bytes=told,
            client_bytes=kept,
        )


def core_seconds(folder: Path, scale: int) -> float:
    """Do one radiograph three times with one thread; take the middle.

    In time of the processor, which others on the machine do not lengthen much.
    """
    model = find_model(DEFAULT_MODEL, scale)
    upscaler = Upscaler.load(model, UpscaleOptions(device="cpu", overwrite=True))
    job = Job(write(folder / "in.dcm", SIDE, SIDE), folder / "out.dcm")
    threads, taken = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for _ in range(3):
        started = time.process_time()
        upscaler.write(upscaler.upscale(upscaler.read(job)))
        taken.append(time.process_time() - started)
    torch.set_num_threads(threads)
    return median(taken) / (SIDE * SIDE / 1e6)


def compressed(folder: Path, chests: Path, scale: int) -> tuple[float, float]:
    """Upscale the middle of each chest; return what JPEG-LS makes of it, before and after."""
    options = UpscaleOptions(
        device="cpu", transfer_syntax=OutputTransferSyntax.JPEGLS, overwrite=True
    )
    upscaler = Upscaler.load(find_model(DEFAULT_MODEL, scale), options)
    ratios = []
    for path in sorted(chests.iterdir()):
        source = read_source(path)
        frame = decode(source)[0]
        top, left = ((side - CUT) // 2 for side in frame.shape)
        middle = frame[top : top + CUT, left : left + CUT]
        dataset = pydicom.dcmread(ROOT / "examples" / "chest-1024.dcm")
        dataset.Rows = dataset.Columns = CUT
        dataset.BitsStored = source.dataset.BitsStored
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelData = middle.astype("<u2").tobytes()
        dataset.save_as(folder / "cut.dcm")
        upscaler.write(upscaler.upscale(upscaler.read(Job(folder / "cut.dcm", folder / "o.dcm"))))
        dataset.compress(pydicom.uid.JPEGLSLossless)
        output = pydicom.dcmread(folder / "o.dcm")
        pixels = 2 * CUT * CUT
        ratios.append(
            (len(dataset.PixelData) / pixels, len(output.PixelData) / (pixels * scale**2))
        )
    return fmean(low for low, _ in ratios), fmean(high for _, high in ratios)


def scheduled(folder: Path) -> float:
    """Return how many tasks a second a scheduler hands to two workers."""
    with (
        quiet_dask(),
        LocalCluster(
            n_workers=2, threads_per_worker=2, dashboard_address=None, local_directory=folder
        ) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(abs, range(FEW)))
        started = time.perf_counter()
        client.gather(client.map(abs, range(-MANY // 10, 0)))
        return MANY // 10 / (time.perf_counter() - started)


def ledger(folder: Path) -> tuple[float, float]:
    """Return files a second that a ledger takes, and bytes of each."""
    work = OutputKey("0" * 64, "1" * 64, "noise|fp32|same|private|")
    book = Ledger(folder / "ledger")
    started = time.perf_counter()
    for number in range(FEW):
        target = folder / "2026" / "11" / f"{number:032x}.dcm"
        book.mark_pending(target, work, f"{number:064x}")
        book.mark_done(target, work, f"{number:064x}")
    seconds = time.perf_counter() - started
    book.close()
    many = folder / "ledger"
    before = many.stat().st_size
    with closing(sqlite3.connect(many)) as connection, connection:
        row = ("0" * 64, "1" * 64, work.options, "2" * 64, 1, "2026-11-25T00:00:00+00:00")
        connection.executemany(
            "INSERT INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((f"2026/12/{number:032x}.dcm", *row) for number in range(MANY)),
        )
    return FEW / seconds, (many.stat().st_size - before) / MANY


def accounts() -> tuple[float, float]:
    """Return bytes of a file in the report, and of its job and result in memory."""

    def result(number: int) -> Result:
        name = f"{number:032x}.dcm"
        return Result(
            Job(Path("/archive/2026/11", name), Path("/upscaled/2026/11", name)),
            FileStatus.DONE,
            warnings=["no body part is stated"],
            timing=Timing(0.123, 4.567, 0.321),
            input_shape=(2500, 2048),
            output_shape=(10000, 8192),
            deviation=AgreementDeviation(0.1234, 0.1, 1.2345),
            plan=MemoryPlan(64, 0.08, 1 << 30),
            source_sha256=f"{number:064x}",
            output_sha256=f"{-number & (1 << 256) - 1:064x}",
            peak_rss_bytes=1 << 30,
        )

    told = len(json.dumps(file_record(result(1)), indent=1))
    tracemalloc.start()
    kept = [result(number) for number in range(MANY)]
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return told, size


if __name__ == "__main__":
    main()
