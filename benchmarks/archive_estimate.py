"""What an archive of radiographs needs, computed from what one file costs.

    python -m benchmarks.archive_estimate [--images N] [--days D] [--set COST=VALUE]
        [--costs FILE.json]

Nothing is measured here: costs are those of docs/scale.md, as
`benchmarks.file_costs` measured them, or given. Assumptions are arguments, and said
to be such in the table that is written into the page.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from benchmarks.file_costs import PAGE, Costs
from benchmarks.run_study import fill
from cxrsr_cli.evaluation.tables import Table
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, find_model

_DAY = 86_400.0
_SCALES = (2, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Assumptions: what is to be done, in which time, with what.

    Attributes
    ----------
    images : float
        Radiographs.
    megapixels : float
        Of each, in cells of two bytes.
    days : float
        In which all are to be done.
    gpu_teraflops : float
        That a GPU sustains in the network; never measured here.
    memory_gib : float
        Of the client.
    """

    images: float = 1e8
    megapixels: float = 5.0
    days: float = 365.0
    gpu_teraflops: float = 30.0
    memory_gib: float = 64.0


@dataclass(frozen=True, slots=True)
class Needs:
    """What an archive needs at one factor.

    Attributes
    ----------
    core_hours, gpu_hours : float
        Of all files.
    cores, gpus : float
        To be ready in time.
    bytes_in, bytes_out : float
        Without compression.
    packed_in, packed_out : float
        In JPEG-LS.
    """

    core_hours: float
    gpu_hours: float
    cores: float
    gpus: float
    bytes_in: float
    bytes_out: float
    packed_in: float
    packed_out: float

    @classmethod
    def of(cls, archive: Archive, costs: Costs, scale: int) -> "Needs":
        """Compute them."""
        pixels = archive.images * archive.megapixels * 1e6
        each = getattr(costs, f"core_seconds_per_megapixel_x{scale}")
        core_hours = pixels / 1e6 * each / 3600
        macs = find_model(DEFAULT_MODEL, scale).metadata.complexity.macs
        gpu_hours = 2 * macs * pixels / (archive.gpu_teraflops * 1e12) / 3600
        hours = 24 * archive.days
        out = 2 * pixels * scale**2
        packed = out * getattr(costs, f"jpegls_x{scale}")
        return cls(
            core_hours,
            gpu_hours,
            core_hours / hours,
            gpu_hours / hours,
            2 * pixels,
            out,
            2 * pixels * costs.jpegls_in,
            packed,
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """What one client with one scheduler and one ledger cannot exceed.

    Attributes
    ----------
    name : str
        Of the limit.
    days : float
        That it alone takes for the archive.
    """

    name: str
    days: float


def limits(archive: Archive, costs: Costs) -> list[Limit]:
    """Return what takes time however many workers there are, the worst first."""
    rates = {
        "ledger on this machine's disk": costs.ledger_files_per_second,
        "scheduler": costs.tasks_per_second,
    }
    found = [Limit(name, archive.images / rate / _DAY) for name, rate in rates.items()]
    return sorted(found, key=lambda limit: -limit.days)


def links(needs: Needs, archive: Archive) -> dict[str, float]:
    """Return gigabits a second, all the time, that reading and writing take."""
    seconds = archive.days * _DAY
    return {
        "plain": (needs.bytes_in + needs.bytes_out) * 8 / seconds / 1e9,
        "packed": (needs.packed_in + needs.packed_out) * 8 / seconds / 1e9,
    }


def most_files(archive: Archive, costs: Costs) -> float:
    """Return how many files a client can hold the results of, with their report beside them."""
    return archive.memory_gib * 2**30 / (costs.client_bytes + 2 * costs.report_bytes)


def rows(archive: Archive, costs: Costs) -> Iterator[list[str]]:
    """Lay out all of it; the last column says what is assumed."""
    needs = [Needs.of(archive, costs, scale) for scale in _SCALES]
    rate = archive.images / (archive.days * _DAY)

    def both(name: str, form: str, values: list[float], note: str = "") -> list[str]:
        return [name, *(form.format(value) for value in values), note]

    size = f"{archive.megapixels:g} megapixels each (assumed)"
    yield both("CPU, core-hours", "{:,.0f}", [each.core_hours for each in needs], size)
    yield both(
        f"cores for {archive.days:g} days", "{:,.0f}", [each.cores for each in needs], "all busy"
    )
    gpu = f"**assumed**: {archive.gpu_teraflops:g} TFLOP/s sustained, never measured"
    yield both("GPU, hours", "{:,.0f}", [each.gpu_hours for each in needs], gpu)
    yield both(
        f"GPUs for {archive.days:g} days", "{:,.1f}", [each.gpus for each in needs], "the same"
    )
    for name in ("in", "out"):
        plain = [getattr(each, f"bytes_{name}") / 1e15 for each in needs]
        packed = [getattr(each, f"packed_{name}") / 1e15 for each in needs]
        yield both(f"storage {name}, PB", "{:.2f}", plain, "not compressed")
        yield both(f"storage {name} in JPEG-LS, PB", "{:.2f}", packed, "measured ratio")
    for kind, note in (("plain", "not compressed"), ("packed", "in JPEG-LS")):
        flows = [links(each, archive)[kind] for each in needs]
        yield both("network, Gbit/s all the time", "{:.2f}", flows, f"in and out, {note}")
    yield both("files a second", "{:.2f}", [rate] * 2, f"in {archive.days:g} days")
    for limit in limits(archive, costs):
        yield both(f"{limit.name} alone, days", "{:,.1f}", [limit.days] * 2, "one for all")
    for name, each in (("ledger", costs.ledger_bytes), ("report", costs.report_bytes)):
        yield both(f"{name}, GB", "{:,.0f}", [archive.images * each / 1e9] * 2, "one for all")
    memory = archive.images * (costs.client_bytes + 2 * costs.report_bytes) / 2**30
    note = "results are kept, and the report made, in memory"
    yield both("client's memory, GiB", "{:,.0f}", [memory] * 2, note)
    most = most_files(archive, costs)
    note = f"of {archive.memory_gib:g} GiB (assumed)"
    yield both("files that a client can account for", "{:,.0f}", [most] * 2, note)
    yield both("shards of 100,000 files", "{:,.0f}", [archive.images / 1e5] * 2, "as advised below")


def breaks_first(archive: Archive, costs: Costs) -> str:
    """Say what one client, scheduler and ledger cannot do, however many workers they have."""
    most, worst = most_files(archive, costs), limits(archive, costs)[0]
    if archive.images > most:
        return (
            f"With one client for all, its memory breaks first, after {most:,.0f} files; then "
            f"the {worst.name}, which alone takes {worst.days:,.1f} days."
        )
    return f"With one client for all, the {worst.name} limits it: {worst.days:,.1f} days alone."


def main() -> None:
    """Read the costs, and fill the table in."""
    archive = Archive()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for each in fields(Archive):
        name = f"--{each.name.replace('_', '-')}"
        parser.add_argument(name, type=float, default=getattr(archive, each.name))
    parser.add_argument("--costs", type=Path, help="JSON with all costs, or some")
    parser.add_argument("--set", action="append", default=[], metavar="COST=VALUE")
    arguments = parser.parse_args()
    archive = Archive(**{each.name: getattr(arguments, each.name) for each in fields(Archive)})
    costs = Costs.read(PAGE.read_text(encoding="utf-8"))
    if arguments.costs:
        costs = replace(costs, **json.loads(arguments.costs.read_text(encoding="utf-8")))
    for pair in arguments.set:
        name, _, value = pair.partition("=")
        costs = replace(costs, **{name: float(value)})
    titles = [f"{archive.images:,.0f} radiographs", *(f"x{scale}" for scale in _SCALES), ""]
    table = Table([(title, 0) for title in titles], list(rows(archive, costs))).as_markdown()
    fill(PAGE, "archive", f"{table}\n\n{breaks_first(archive, costs)}")
    print(table)


if __name__ == "__main__":
    main()
