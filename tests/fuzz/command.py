"""Run the whole command over folders of damaged files, one start for many of them.

    python -m tests.fuzz.command --cases 20000 --seed 1

Whatever the bytes: each file has a result or a documented error, the command ends with a
documented code, no output is left of a failure, and no source is changed. A third of the files has
damaged bytes, a third another structure (`structure`), a third a damaged frame (`codestreams`).
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.errors import ExitCode, InternalError
from tests.conftest import small_chest
from tests.fuzz.codestreams import compressed_files, mutate
from tests.fuzz.mutate import mutations
from tests.fuzz.structure import structural_mutations

_CODES = (ExitCode.OK, ExitCode.NO_INPUT, ExitCode.SOME_FAILED, ExitCode.ALL_FAILED)

Case = tuple[str, bytes]
"""Kind of damage, and the file."""


def damaged_files(count: int, seed: int) -> Iterator[Case]:
    """Yield damaged files; the same for the same seed."""
    source = random.Random(seed)  # noqa: S311 - not for secrets
    with tempfile.TemporaryDirectory() as temporary:
        small_chest().save_as(Path(temporary) / "small.dcm")
        plain = (Path(temporary) / "small.dcm").read_bytes()
        compressed = list(compressed_files(Path(temporary)))
    bytewise, structural = (of(plain, count, seed) for of in (mutations, structural_mutations))
    for number in range(count):
        match number % 3:
            case 0:
                yield "bytes", next(bytewise)
            case 1:
                yield "structure", next(structural)
            case _:
                file = compressed[number // 3 % len(compressed)]
                kind, stream = mutate(file.stream, source)
                yield f"{file.name}, {kind}", file.with_stream(stream)


def upscale_folder(
    cases: Sequence[Case], folder: Path, model: str
) -> tuple[Counter[tuple[str, str]], int]:
    """Upscale files by one run; return how many of each kind ended how, and the peak memory.

    Raises
    ------
    AssertionError
        If one ended in a way that is not documented.
    """
    inputs, outputs, report = folder / "in", folder / "out", folder / "report.json"
    inputs.mkdir()
    for number, (_, data) in enumerate(cases):
        (inputs / f"{number:05}.dcm").write_bytes(data)
    allowed = [word for override in AcceptanceOverride for word in ("--allow", override)]
    options = ["--scale", "2", "--model", model, "--device", "cpu", "--no-ledger", "--log-json"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cxrsr_cli", "upscale", str(inputs), str(outputs)),
            *(*options, "--report", str(report), *allowed),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode in _CODES, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    assert all(json.loads(line) for line in done.stderr.splitlines())
    told = json.loads(report.read_text(encoding="utf-8"))
    ends, written = Counter[tuple[str, str]](), set[Path]()
    for record in told["files"]:
        path, target = Path(record["source"]), Path(record["output"])
        kind, data = cases[int(path.stem)]
        assert path.read_bytes() == data, f"{path} was changed"
        assert record["status"] in ("done", "failed", "skipped")
        end = "done"
        if error := record["error"]:
            end = error["kind"]
            assert end != InternalError.__name__, f"{path}: {error['message']}"
        else:
            written.add(target)
        ends[kind, end] += 1
    assert ends.total() == len(cases)
    assert set(outputs.iterdir() if outputs.exists() else ()) == written
    return ends, int(told["peak_memory_bytes"])


def main() -> None:
    """Print how the cases ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=int, default=1000, help="files of a run")
    parser.add_argument("--model", default="rir-s", help="name or file of a model at x2")
    arguments = parser.parse_args()
    ends, peak, started = Counter[tuple[str, str]](), 0, time.monotonic()
    cases = damaged_files(arguments.cases, arguments.seed)
    while part := list(islice(cases, arguments.folder)):
        with tempfile.TemporaryDirectory() as folder:
            found, memory = upscale_folder(part, Path(folder), arguments.model)
        ends, peak = ends + found, max(peak, memory)
    for title, index in (("kind", 0), ("end", 1)):
        counts = Counter[str]()
        for key, count in ends.items():
            counts[key[index]] += count
        print(f"by {title}:", *(f"{n:7} {name}" for name, n in counts.most_common()), sep="\n")  # noqa: T201
    print(  # noqa: T201
        f"{ends.total()} cases, seed {arguments.seed}, {time.monotonic() - started:.0f} s, "
        f"peak {peak >> 20} MiB"
    )


if __name__ == "__main__":
    main()
