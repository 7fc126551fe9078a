"""Pack a folder into tar files with hashes, for a machine that accepts only small transfers.

    python models/pack_data.py pack DATA OUT [--shard-mib 55]
    python models/pack_data.py unpack SHARDS DATA

The tar files (shards) are not compressed, because PNG is. Equal files give equal bytes, so that a
transfer can be repeated and compared. `sha256sum --check` reads `SHA256SUMS` too. Needs a checkout
with its package installed.
"""

import argparse
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cxrsr_cli.common.files import atomic_write, sha256_file
from cxrsr_cli.errors import CxrsrError, InputError, OutputError, UsageError

SUMS = "SHA256SUMS"
MIB = 2**20
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\]+)")
# The defaults differ between systems.
_FORMAT: Final = tarfile.PAX_FORMAT
_ENCODING = "utf-8"


def main() -> None:
    """Pack or unpack a folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("data", type=Path, metavar="DATA")
    packing.add_argument("out", type=Path, metavar="OUT")
    packing.add_argument("--shard-mib", type=float, default=55, help="largest size of a shard")
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("shards", type=Path, metavar="SHARDS")
    unpacking.add_argument("data", type=Path, metavar="DATA")
    arguments = parser.parse_args()
    try:
        if arguments.command == "pack":
            for path in pack(arguments.data, arguments.out, int(arguments.shard_mib * MIB)):
                print(f"{path}: {path.stat().st_size / MIB:.1f} MiB")
        else:
            print(f"{unpack(arguments.shards, arguments.data)} files below {arguments.data}")
    except (CxrsrError, OSError) as error:
        sys.exit(f"pack_data: {error}")


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a shard.

    Attributes
    ----------
    path : Path
        The file.
    header : tarfile.TarInfo
        Its header, which is equal for two copies of the file.
    """

    path: Path
    header: tarfile.TarInfo

    @classmethod
    def of(cls, path: Path, data: Path) -> "Member":
        """Make the member of a file below `data`."""
        # A new header has mode 0644, owner 0, no owner name, and time 0.
        header = tarfile.TarInfo(path.relative_to(data).as_posix())
        header.size = path.stat().st_size
        return cls(path, header)

    @property
    def size(self) -> int:
        """Number of bytes in the shard."""
        header_size = len(self.header.tobuf(_FORMAT, _ENCODING))
        return header_size + _round_up(self.header.size, tarfile.BLOCKSIZE)


def pack(data: Path, out: Path, limit: int) -> list[Path]:
    """Write the files below a folder into shards.

    Parameters
    ----------
    data : Path
        The folder.
    out : Path
        Gets ``shard-000.tar`` and so on, and then ``SHA256SUMS``.
    limit : int
        Largest size of a shard in bytes.

    Returns
    -------
    list of Path
        The shards.

    Raises
    ------
    InputError
        If there is no file, a file is larger than a shard, or an entry is
        neither a file nor a folder, such as a link.
    UsageError
        If `out` is inside of `data`.
    OutputError
        If `out` has shards that would not be replaced.
    """
    if out.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"{out} is inside of {data}; the shards would be packed too")
    shards = list(_fill_shards((Member.of(path, data) for path in _files(data)), limit))
    paths = [out / f"shard-{number:03}.tar" for number in range(len(shards))]
    if stray := sorted(set(out.glob("shard-*.tar")) - set(paths)):
        raise OutputError(f"{_list(stray)}: not part of this packing; remove it")
    out.mkdir(parents=True, exist_ok=True)
    for path, shard in zip(paths, shards, strict=True):
        _write(path, shard)
    with atomic_write(out / SUMS) as temporary:
        lines = [f"{sha256_file(path)}  {path.name}\n" for path in paths]
        temporary.write_text("".join(lines), encoding="utf-8")
    return paths


def unpack(shards: Path, data: Path) -> int:
    """Check all shards, then write their files. A second call changes nothing.

    Parameters
    ----------
    shards : Path
        Folder with the shards and ``SHA256SUMS``.
    data : Path
        Gets the files; its other files are kept.

    Returns
    -------
    int
        Number of files.

    Raises
    ------
    InputError
        If a shard is missing or damaged, or has an entry that is not a file
        below `data`. The error is raised before any file is written; for a path
        outside of `data`, before that file is written.
    """
    sums = _read_sums(shards / SUMS)
    paths = [shards / name for name in sums]
    wrong = [path for path in paths if not path.is_file() or sha256_file(path) != sums[path.name]]
    if wrong:
        raise InputError(f"{_list(wrong)}: missing or damaged (see {SUMS})")
    data.mkdir(parents=True, exist_ok=True)
    return sum(_extract(path, data) for path in paths)


def _files(data: Path) -> list[Path]:
    if not data.is_dir():
        raise InputError(f"{data} is not a folder")
    found = sorted(data.rglob("*"), key=lambda path: path.relative_to(data).as_posix())
    odd = [path for path in found if path.is_symlink() or not (path.is_dir() or path.is_file())]
    if odd:
        raise InputError(f"{_list(odd)}: neither a file nor a folder")
    files = [path for path in found if path.is_file()]
    if not files:
        raise InputError(f"{data} has no file")
    return files


def _fill_shards(members: Iterable[Member], limit: int) -> Iterator[list[Member]]:
    """Fill the shards one after the other, in the order of the names."""
    shard, used = list[Member](), 0
    for member in members:
        if _archive_size(member.size) > limit:
            raise InputError(f"{member.path}: larger than a shard of {limit / MIB:g} MiB")
        if _archive_size(used + member.size) > limit:
            yield shard
            shard, used = [], 0
        shard.append(member)
        used += member.size
    yield shard


def _write(path: Path, shard: list[Member]) -> None:
    with (
        atomic_write(path) as temporary,
        tarfile.open(temporary, "w", format=_FORMAT, encoding=_ENCODING) as archive,
    ):
        for member in shard:
            with member.path.open("rb") as file:
                archive.addfile(member.header, file)


def _extract(path: Path, data: Path) -> int:
    try:
        with tarfile.open(path, "r:", encoding=_ENCODING) as archive:
            members = archive.getmembers()
            # `pack` writes only files, and in some versions of Python links can bypass the filter.
            if odd := [member.name for member in members if not member.isreg()]:
                raise InputError(f"{path}: {_list(odd)}: not a file")
            archive.extractall(data, filter="data")
    except tarfile.TarError as error:
        raise InputError(f"{path}: {error}") from error
    return len(members)


def _read_sums(path: Path) -> dict[str, str]:
    matches = [_LINE.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not matches or not all(matches):
        raise InputError(f"{path} is not a list of SHA-256 and names")
    return {match[2]: match[1] for match in matches if match}


def _archive_size(used: int) -> int:
    """Return the size of a shard: two blocks of zeros at the end, rounded up to a record."""
    return _round_up(used + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE)


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _list(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


if __name__ == "__main__":
    main()
