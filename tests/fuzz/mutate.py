"""Mutate real DICOM files and upscale what comes out.

    python -m tests.fuzz.mutate --cases 5000 --seed 1 FOLDER...

Whatever the bytes: a result or a documented error, never a defect
(`InternalError`), no output on failure, and the source unchanged.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.errors import InternalError
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler

LARGEST = 256 << 10
"""Bytes; larger files would spend the time on pixels, not on cases."""

_INTERESTING = (
    b"\x00", b"\xff", b"\x7f", b"\x80", b"SQ", b"UN", b"OW", b"\xff\xff\xff\xff",
    b"\xfe\xff\x00\xe0", b"\x28\x00\x10\x00", b"\x28\x00\x00\x01", b"\xe0\x7f\x10\x00",
)  # fmt: skip


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` damaged copies; the same for the same seed."""
    source = random.Random(seed)  # noqa: S311 - not for secrets
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(source.choice((1, 1, 2, 4, 16))):
            _damage(mutant, source)
        yield bytes(mutant)


def _damage(mutant: bytearray, source: random.Random) -> None:
    # Most of a file is pixels; most of what can go wrong is in its first part.
    end = len(mutant) if source.random() < 0.3 else min(len(mutant), 4000)
    place = source.randrange(min(128, end - 1), end)
    match source.randrange(6):
        case 0:
            mutant[place] ^= 1 << source.randrange(8)
        case 1:
            token = source.choice(_INTERESTING)
            mutant[place : place + len(token)] = token
        case 2:
            del mutant[place : place + source.choice((1, 2, 8, 100))]
        case 3:
            mutant[place:place] = source.randbytes(source.choice((1, 2, 8, 100)))
        case 4:
            del mutant[place:]
            mutant += b"" if len(mutant) > 132 else bytes(200)
        case _:
            other = source.randrange(min(128, end - 1), end)
            mutant[place : place + 8], mutant[other : other + 8] = (
                mutant[other : other + 8],
                mutant[place : place + 8],
            )


def check(upscaler: Upscaler, data: bytes, folder: Path) -> str:
    """Upscale one case; return what it ended in.

    Raises
    ------
    AssertionError
        If it ended in a way that is not documented.
    """
    source, target = folder / "case.dcm", folder / "out.dcm"
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    (result,) = BatchRunner(LocalExecutor(upscaler)).run([Job(source, target)])
    assert not isinstance(result.error, InternalError), str(result.error)
    assert source.read_bytes() == data
    assert target.exists() == (result.error is None)
    assert {path.name for path in folder.iterdir()} <= {"case.dcm", "out.dcm"}
    return type(result.error).__name__ if result.error else "done"


def small_files(folders: list[Path]) -> list[Path]:
    """List the files that are small enough."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if path.stat().st_size <= LARGEST]


def main() -> None:
    """Run from the command line; print how the cases ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="rir-s", help="name or file of a model at x2")
    parser.add_argument("--cases", type=int, default=1000, help="for each file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    options = UpscaleOptions(scale=2, allow=frozenset(AcceptanceOverride))
    upscaler = Upscaler.load(find_model(arguments.model, 2), options)
    ends: Counter[str] = Counter()
    for path in small_files(arguments.folders):
        with tempfile.TemporaryDirectory() as folder:
            for number, data in enumerate(
                mutations(path.read_bytes(), arguments.cases, arguments.seed)
            ):
                try:
                    ends[check(upscaler, data, Path(folder))] += 1
                except AssertionError as error:
                    ends["DEFECT"] += 1
                    print(f"{path} seed {arguments.seed} case {number}: {error}")  # noqa: T201
    print(dict(ends))  # noqa: T201
    sys.exit(ends["DEFECT"] > 0)


if __name__ == "__main__":
    main()
