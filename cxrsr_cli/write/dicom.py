"""Write a DICOM file whole, verified, and never over its source."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.fileutil import buffer_length
from pydicom.uid import UID, ExplicitVRLittleEndian

from cxrsr_cli.errors import NotDicomError, OutputError
from cxrsr_cli.read.cells import PixelFormat
from cxrsr_cli.read.codecs import decodes_to_raw_cells
from cxrsr_cli.read.fingerprint import sha256_file
from cxrsr_cli.read.silence import quiet_libraries
from cxrsr_cli.write.atomic import atomic_write
from cxrsr_cli.write.explicit import to_explicit_vr
from cxrsr_cli.write.readback import verify_written_file

_ENCODE_CHUNK_BYTES = 1 << 20
"""Cells that are changed at a time."""


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """Refuse a target before any work is done for it.

    Raises
    ------
    OutputError
        If the target is the source, by whatever name or link, or exists and
        may not be overwritten, or is a folder, or lies where none can be made.
    """
    try:
        if target.is_dir():
            raise OutputError(f"{target} is a folder")
        if target.exists() and source.samefile(target):
            raise OutputError("input and output are the same file, and a source is kept")
        if not overwrite and (target.exists() or target.is_symlink()):
            raise OutputError(f"{target} exists; use --overwrite to replace it")
        check_writable(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from error


def check_writable(path: Path) -> None:
    """Refuse a path in whose folder, there or to be made, nothing can be written.

    Raises
    ------
    OutputError
        Naming the folder that is in the way.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise OutputError(f"cannot write {path}: {folder} is not a folder to write in")


@contextmanager
def os_errors_as_output_error(target: Path) -> Iterator[None]:
    """Make a target's folder, and say what then stops the writing in this program's words.

    Raises
    ------
    OutputError
        For any error of the operating system.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {target.parent}: {error.strerror}") from error
    try:
        yield
    except FileExistsError:
        raise OutputError(f"{target} appeared meanwhile; use --overwrite to replace it") from None
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or 'I/O error'}") from error


def write_dicom(
    dataset: FileDataset,
    pixels: NDArray[np.integer],
    target: Path,
    *,
    syntax: UID = ExplicitVRLittleEndian,
    overwrite: bool = False,
    announce: Callable[[str], None] = lambda _: None,
) -> str:
    """Encode, write, decode again, compare, then rename.

    Parameters
    ----------
    dataset : pydicom.dataset.FileDataset
        The derived object, uncompressed; encoded in place. Pixel Data may be a
        buffer (`PixelDataStream`), which is written piece by piece; to be compressed
        or deflated it is put in memory.
    pixels : numpy.ndarray
        ``(F, H, W)`` stored values that the file must hold.
    target : Path
        Final name; missing folders are made.
    syntax : pydicom.uid.UID
        Lossless transfer syntax to write (`resolve`).
    overwrite : bool
        Whether an existing file is replaced.
    announce : callable
        Told the file's SHA-256 just before it gets its name.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    OutputError
        If the pixels cannot be encoded, or the file cannot be written or does
        not read back as written. No file is left under the final name.
    NotDicomError
        If the source's elements are too damaged to be written.
    """
    with os_errors_as_output_error(target), atomic_write(target, overwrite=overwrite) as temporary:
        with quiet_libraries():
            _encode(dataset, syntax)
            _save(dataset, temporary, syntax)
        if not verify_written_file(temporary, dataset, pixels):
            raise OutputError(f"{temporary.parent}: what was written does not read back the same")
        sha256 = sha256_file(temporary)
        announce(sha256)
    return sha256


def _encode(dataset: FileDataset, syntax: UID) -> None:
    if not syntax.is_compressed:
        dataset.file_meta.TransferSyntaxUID = syntax
        return
    stored = dataset.BitsStored
    try:
        _put_in_memory(dataset)
        if decodes_to_raw_cells(syntax):
            # pydicom first cuts cells to Bits Stored, and so breaks 8 bits stored in 16.
            dataset.BitsStored = dataset.BitsAllocated
        else:
            _right_align_values(dataset)
        dataset.compress(syntax, generate_instance_uid=False)
    # Codecs raise anything, with header values in the text.
    except Exception as error:
        raise OutputError(
            f"the pixels cannot be written as {syntax.name} ({type(error).__name__}); "
            "use --transfer-syntax explicit"
        ) from None
    finally:
        dataset.BitsStored = stored


def _put_in_memory(dataset: FileDataset) -> None:
    """Make bytes of Pixel Data that are a buffer, which no codec takes."""
    pixels = dataset["PixelData"]
    if pixels.is_buffered:
        pixels.value.seek(0)
        # With its length: else it would be read in pieces, and joined.
        pixels.value = pixels.value.read(buffer_length(pixels.value))


def _right_align_values(dataset: FileDataset) -> None:
    """Move values down in their cells for a codec that knows only values (PS3.5 8.2)."""
    above = PixelFormat.of(dataset)
    below = replace(above, high_bit=above.bits_stored - 1)
    if above == below:
        return
    cells = np.frombuffer(bytearray(dataset.PixelData), above.cell_dtype)
    for start in range(0, cells.size, _ENCODE_CHUNK_BYTES):
        part = cells[start : start + _ENCODE_CHUNK_BYTES]
        part[:] = below.pack(above.unpack(part))
    dataset.PixelData = cells.tobytes()
    dataset.HighBit = below.high_bit


def _save(dataset: FileDataset, path: Path, syntax: UID) -> None:
    try:
        if dataset.original_encoding[0] and not syntax.is_implicit_VR:
            to_explicit_vr(dataset)
        dataset.save_as(path, enforce_file_format=True, overwrite=True)
    except OSError:
        raise
    # Elements that pydicom read from a damaged file may be beyond its writer,
    # which then raises anything, with values in the text.
    except Exception as error:
        raise NotDicomError(
            f"damaged DICOM: it holds elements that cannot be written ({type(error).__name__})"
        ) from None
