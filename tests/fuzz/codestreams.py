"""Damage compressed frames of every transfer syntax, and upscale what comes out.

    python -m tests.fuzz.codestreams --cases 20000 --seed 1

Whatever the frame: a result or a documented error, and this process lives. A frame that was cut
is refused, or decodes to all of its pixels. Needs dcmtk and imagecodecs, which make the frames.
"""

import argparse
import io
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from cxrsr_cli.common.process import peak_rss_bytes
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import UndecodablePixelDataError
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from tests.fuzz.mutate import check
from tests.helpers.encodings import LOSSLESS, LOSSY, PICTURES, Encode

_SHARED = Path(__file__).parents[3] / "shared" / "data"
_HEADER_BYTES = 200
_END_OF_IMAGE = b"\xff\xd9"


@dataclass(frozen=True)
class CompressedFile:
    """A small radiograph, and its one compressed frame."""

    name: str
    dataset: pydicom.FileDataset
    stream: bytes
    values: NDArray[np.int32]

    def with_stream(self, stream: bytes) -> bytes:
        """Return the file with another frame."""
        self.dataset.PixelData = encapsulate([stream])
        file = io.BytesIO()
        with quiet_libraries():
            self.dataset.save_as(file)
        return file.getvalue()


def compressed_files(folder: Path) -> Iterator[CompressedFile]:
    """Make a file of each compressed syntax."""
    encodings: dict[str, Encode] = {
        syntax.keyword: encode
        for syntax, encode in (
            *LOSSLESS.items(),
            *((s, lossy.encode) for s, lossy in LOSSY.items()),
        )
        if syntax.is_compressed
    }
    for name, encode in encodings.items():
        picture = "8 bits" if name == JPEGBaseline8Bit.keyword else "12 bits"
        dataset = PICTURES[picture].dataset(partial(Path, _SHARED))
        path = folder / "encoded.dcm"
        with quiet_libraries():
            dataset.save_as(folder / "plain.dcm", implicit_vr=False, little_endian=True)
            encode(folder / "plain.dcm", path)
            encoded = pydicom.dcmread(path)
        stream = next(generate_frames(encoded.PixelData, number_of_frames=1))
        if name != RLELossless.keyword:
            stream = stream.rstrip(b"\0")
        yield CompressedFile(name, encoded, stream, decode(read_source(path)))


def mutate(stream: bytes, source: random.Random) -> tuple[str, bytes]:
    """Damage a frame; return also the kind of the damage."""
    kind = source.choice(tuple(_KINDS))
    return kind, _KINDS[kind](stream, source)


def _header(stream: bytes, source: random.Random) -> bytes:
    at = source.randrange(min(_HEADER_BYTES, len(stream)))
    return stream[:at] + source.randbytes(1) + stream[at + 1 :]


def _bits(stream: bytes, source: random.Random) -> bytes:
    damaged = bytearray(stream)
    for _ in range(source.choice((1, 2, 8))):
        damaged[source.randrange(len(stream))] ^= 1 << source.randrange(8)
    return bytes(damaged)


def _marker(stream: bytes, source: random.Random) -> bytes:
    """Change a marker, or the length after it."""
    places = [at for at in range(len(stream) - 4) if stream[at] == 0xFF]
    at = source.choice(places or [0]) + source.choice((0, 1, 2, 3))
    value = source.choice((b"\x00", b"\xff", b"\xc0", b"\xc3", b"\xd9", b"\xda", b"\x7f"))
    return stream[:at] + value + stream[at + 1 :]


def _remove(stream: bytes, source: random.Random) -> bytes:
    at = source.randrange(len(stream))
    return stream[:at] + stream[at + source.choice((1, 2, 8, 100)) :]


def _insert(stream: bytes, source: random.Random) -> bytes:
    at = source.randrange(len(stream))
    return stream[:at] + source.randbytes(source.choice((1, 2, 8, 100))) + stream[at:]


def _cut(stream: bytes, source: random.Random) -> bytes:
    return stream[: source.randrange(len(stream))]


def _cut_with_end(stream: bytes, source: random.Random) -> bytes:
    return _cut(stream, source) + _END_OF_IMAGE


_KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "header byte": _header,
    "bits": _bits,
    "marker or length": _marker,
    "bytes removed": _remove,
    "bytes inserted": _insert,
    "cut": _cut,
    "cut, with an end": _cut_with_end,
}


def fuzz(upscaler: Upscaler, folder: Path, cases: int, seed: int) -> Counter[tuple[str, str, str]]:
    """Upscale damaged frames; return how many of each syntax and kind ended how.

    Raises
    ------
    AssertionError
        If one ended in any other way than a result or a documented error.
    """
    source = random.Random(seed)  # noqa: S311 - not for secrets
    with tempfile.TemporaryDirectory() as temporary:
        files = list(compressed_files(Path(temporary)))
    ends = Counter[tuple[str, str, str]]()
    for case in range(cases):
        file = files[case % len(files)]
        kind, stream = mutate(file.stream, source)
        data = file.with_stream(stream)
        if kind.startswith("cut"):
            assert_refused_or_whole(file, data)
        ends[file.name, kind, str(check(upscaler, data, folder))] += 1
    return ends


def assert_refused_or_whole(file: CompressedFile, data: bytes) -> None:
    """Fail if pixels of a frame that was cut are made up."""
    try:
        values = decode(read_source(io.BytesIO(data)))
    except UndecodablePixelDataError:
        return
    assert np.array_equal(values, file.values), (
        f"{file.name}: a cut frame was taken for a whole one"
    )


def main() -> None:
    """Fuzz with the model rir-s at x2, and print how the cases ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="rir-s", help="name or file of a model at x2")
    arguments = parser.parse_args()
    options = UpscaleOptions(scale=2, allow=frozenset(AcceptanceOverride))
    upscaler, started = Upscaler.load(find_model(arguments.model, 2), options), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        ends = fuzz(upscaler, Path(folder), arguments.cases, arguments.seed)
    lines = []
    for index, title in enumerate(("syntax", "kind", "end")):
        counts = Counter[str]()
        for key, count in ends.items():
            counts[key[index]] += count
        lines += [f"by {title}:", *(f"{count:7} {name}" for name, count in counts.most_common())]
    lines.append(
        f"{arguments.cases} cases, seed {arguments.seed}, {time.monotonic() - started:.0f} s, "
        f"peak {peak_rss_bytes() >> 20} MiB"
    )
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
