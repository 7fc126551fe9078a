"""Read, upscale, derive and write one file, object or array."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from cxrsr_cli import __version__
from cxrsr_cli.common.files import atomic_write, ensure_unchanged, permissions_of, sha256_file
from cxrsr_cli.common.process import now
from cxrsr_cli.derive.derive import derive
from cxrsr_cli.derive.overlays import overlay_memory
from cxrsr_cli.derive.rehearsal import rehearse
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.acceptance import AcceptanceOverride, check_acceptance, check_sop_class
from cxrsr_cli.dicom.attributes import number_of_frames
from cxrsr_cli.dicom.decode import check_pixel_data, decode
from cxrsr_cli.dicom.pixel_format import (
    Padding,
    PixelFormat,
    PixelRange,
    fill_padding,
    reapply_padding,
)
from cxrsr_cli.dicom.source import (
    NATIVE_SYNTAXES,
    DicomSource,
    media_storage_sop_class,
    read_source,
    to_file,
)
from cxrsr_cli.dicom.transfer_syntax import resolve_transfer_syntax, write_memory_factor
from cxrsr_cli.dicom.write import (
    check_free_space,
    check_target,
    encode_dicom,
    os_errors_as_output_error,
    write_dicom,
)
from cxrsr_cli.errors import MemoryLimitError, NotDicomError
from cxrsr_cli.images.picture_files import (
    check_formats,
    check_picture,
    is_picture,
    picture_source,
    read_picture,
    write_picture,
)
from cxrsr_cli.images.picture_provenance import (
    check_provenance_path,
    output_picture,
    write_provenance,
)
from cxrsr_cli.inference.agreement import AgreementDeviation
from cxrsr_cli.inference.memory_plan import MemoryPlan
from cxrsr_cli.inference.noise_curve import NoiseCurve
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.config import Agreement
from cxrsr_cli.networks.model_files import ModelFile
from cxrsr_cli.options import Job, UpscaleOptions

_LOG = logging.getLogger(__name__)

_FLOAT_STEPS = 65535
"""Arrays of floats are scaled to the range of 16 bits."""


@dataclass(frozen=True, slots=True)
class DecodedSource:
    """A source that was accepted, with the SHA-256 of its file."""

    job: Job
    source: DicomSource
    sha256: str
    frames: NDArray[np.int32]
    """``(F, H, W)`` stored values."""
    plan: MemoryPlan
    """How the frames are divided into strips."""
    warnings: list[str]
    """What the user should know of the source, without patient data."""
    derivation_warnings: list[str] = field(default_factory=list)
    """What the user will be told of the derived object."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.frames.shape[-2:]
        return rows, columns


@dataclass(frozen=True, slots=True)
class UpscaledFrames:
    """New stored values of a source."""

    decoded: DecodedSource
    frames: NDArray[np.integer]
    """``(F, scale * H, scale * W)`` stored values, of `PixelFormat.dtype`."""
    noise: list[NoiseCurve]
    """Of each frame, as agreement used it."""
    deviation: AgreementDeviation
    """Of the worst frame."""
    notes: list[str] = field(default_factory=list)
    """What did not go as planned."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that was written."""

    sha256: str
    warnings: list[str]
    """What the user should know of the output, without patient data."""


@dataclass(frozen=True, slots=True)
class Upscaler:
    """A loaded model and the options that it is run with.

    Nothing in it changes, so any number of threads may use it at the same time.
    """

    predictor: Predictor
    model: ModelFile
    options: UpscaleOptions
    """Resolved: scale, device, precision, agreement and noise reduction are those in use."""
    clock: Callable[[], datetime] = now
    """Gives the time of derivation, with its time zone."""

    @classmethod
    def load(
        cls,
        model: ModelFile,
        options: UpscaleOptions | None = None,
        *,
        clock: Callable[[], datetime] = now,
    ) -> Self:
        """Load a model, which decides the scale, to be run with the options or the defaults.

        Raises
        ------
        ModelError, DeviceError
            As `Predictor.load`.
        """
        options = options or UpscaleOptions()
        predictor = Predictor.load(
            model.path,
            metadata=model.metadata,
            device=options.device,
            precision=options.precision,
            memory=options.memory,
            agreement=options.agreement,
            noise_reduction=options.noise_reduction,
            self_ensemble=options.self_ensemble,
        )
        resolved = replace(
            options,
            scale=predictor.architecture.scale,
            model=model.name,
            device=str(predictor.device),
            precision=predictor.precision,
            agreement=predictor.agreement,
            noise_reduction=predictor.noise_reduction,
        )
        return cls(predictor, model, resolved, clock)

    @property
    def parameters(self) -> DerivationParameters:
        """Everything that decides an output besides its input and the time."""
        return DerivationParameters(
            software=__version__,
            model_sha256=self.model.sha256,
            options=self.options,
            impulse_filter=self.predictor.architecture.impulse_filter,
            noise_level_sha256=self.predictor.noise_level_sha256,
        )

    def upscale_file(
        self,
        source: str | Path,
        target: str | Path,
        *,
        advance: Callable[[float], None] = lambda _: None,
    ) -> WrittenFile:
        """Upscale a DICOM file or a picture, as the command ``cxrsr upscale`` does.

        Parameters
        ----------
        source, target : str or Path
            Input and output.
        advance : callable
            Gets the share that was done since the last call. An exception that it raises
            cancels the work and reaches the caller; no output is left then.

        Raises
        ------
        InputError
            If the source cannot be upscaled.
        OutputError
            If the output cannot be written, or exists and `UpscaleOptions.overwrite` is False.
        """
        decoded = self.read(Job(Path(source), Path(target)))
        return self.write(self.upscale(decoded, advance))

    def upscale_dataset(
        self, dataset: Dataset, *, advance: Callable[[float], None] = lambda _: None
    ) -> FileDataset:
        """Upscale a DICOM object in memory. The result is that of a file, bit for bit.

        Parameters
        ----------
        dataset : pydicom.Dataset
            A whole object with its pixel data; it is not changed. Without file meta
            information its pixel data are native.
        advance : callable
            As of `upscale_file`.

        Returns
        -------
        pydicom.dataset.FileDataset
            The derived object, encoded in the transfer syntax that the options ask for and
            read back. Warnings are logged.

        Raises
        ------
        InputError
            If the object cannot be upscaled.
        OutputError
            If the derived object cannot be encoded.
        """
        file = to_file(dataset)
        source = read_source(file)
        accepted = self._check_acceptance(source)
        plan, job = self._plan(source), Job(Path(), Path())
        sha256, frames = hashlib.sha256(file.getbuffer()).hexdigest(), decode(source)
        upscaled = self.upscale(DecodedSource(job, source, sha256, frames, plan, accepted), advance)
        derived, warnings = self._derive(upscaled)
        for warning in warnings:
            _LOG.warning(warning)
        return encode_dicom(derived, upscaled.frames, self.transfer_syntax(source))

    def upscale_again(
        self,
        source: DicomSource,
        frames: NDArray[np.int32],
        noise: Sequence[NoiseCurve] | None = None,
    ) -> UpscaledFrames:
        """Upscale an object that was accepted before, as `upscale` does.

        Parameters
        ----------
        source : DicomSource
            The object.
        frames : numpy.ndarray
            ``(F, H, W)`` int32, its stored values.
        noise : sequence of NoiseCurve, optional
            Of each frame; estimated by default.

        Raises
        ------
        InputError, ModelError
            As `upscale`.
        """
        plan, job = self._plan(source), Job(Path(), Path())
        return self.upscale(DecodedSource(job, source, "", frames, plan, []), noise=noise)

    def upscale_array(
        self,
        array: NDArray[np.generic],
        *,
        minimum: float,
        maximum: float,
        inverted: bool = False,
        advance: Callable[[float], None] = lambda _: None,
    ) -> NDArray[np.generic]:
        """Upscale a grey image without DICOM.

        Parameters
        ----------
        array : numpy.ndarray
            ``(H, W)`` integers or floats from `minimum` to `maximum`.
        minimum, maximum : float
            Range of values that the image could have, such as 0 and 4095 for 12 bits; not
            the smallest and largest that it has. 16 bits at most for integers.
        inverted : bool
            Whether larger values are darker (MONOCHROME1).
        advance : callable
            As of `upscale_file`.

        Returns
        -------
        numpy.ndarray
            ``(scale * H, scale * W)`` within the range: of the input's type for integers,
            else float32.

        Raises
        ------
        ValueError
            If the array is not such an image.
        ModelError, MemoryLimitError
            As `upscale`.
        """
        if array.ndim != 2 or not array.size or array.dtype.kind not in "iuf":
            raise ValueError("the array is not an image of rows and columns of real numbers")
        # A comparison with NaN is False.
        if not (minimum < maximum and array.min() >= minimum and array.max() <= maximum):
            raise ValueError("minimum and maximum are not the range of the array's values")
        if array.dtype.kind == "f":
            unit = (maximum - minimum) / _FLOAT_STEPS
            low = torch.from_numpy(((array.astype(np.float64) - minimum) / unit).astype(np.float32))
            high = self.predictor.predict(
                low[None, None],
                PixelRange(0, _FLOAT_STEPS, inverted),
                advance=advance,
            )
            values = high[0, 0].double().numpy() * unit + minimum
            return values.clip(minimum, maximum).astype(np.float32)
        if max(abs(minimum), abs(maximum)) > np.iinfo(np.uint16).max:
            raise ValueError("integers of more than 16 bits are not upscaled")
        strips = self.predictor.predict_strips(
            array.astype(np.int32),
            PixelRange(int(minimum), int(maximum), inverted),
            advance=advance,
        )
        return np.concatenate([strip for _, strip in strips]).astype(array.dtype)

    def read(self, job: Job) -> DecodedSource:
        """Read a source, and check it and its target before any work is done.

        Raises
        ------
        InputError
            If the source cannot be upscaled.
        OutputError
            If the output could not be written.
        """
        if job.error:
            raise job.error
        check_formats(job.source, job.target)
        check_target(job.source, job.target, overwrite=self.options.overwrite)
        with ensure_unchanged(job.source):
            source, warnings = self._read_source(job.source)
            plan = self._plan(source)
            self._check_free_space(source, job.target)
            sha256, frames = sha256_file(job.source), decode(source)
        later = list[str]()
        if is_picture(job.target):
            check_provenance_path(job.target)
            signed = PixelFormat.from_dataset(source.dataset).signed
            check_picture(job.target, len(frames), signed=signed, windowed=self._is_windowed(job))
        else:
            later = rehearse(source, frames, self.parameters, self.transfer_syntax(source))
        return DecodedSource(job, source, sha256, frames, plan, warnings, later)

    def _read_source(self, path: Path) -> tuple[DicomSource, list[str]]:
        """Read a DICOM file or a picture; return also the warnings of its acceptance."""
        if is_picture(path):
            source = picture_source(read_picture(path, self.options.bits))
            # A picture states no body part; only its size can be refused.
            everything = frozenset(AcceptanceOverride)
            return source, check_acceptance(source.dataset, self.options.scale, everything)
        try:
            source = read_source(path)
            return source, self._check_acceptance(source)
        except (NotDicomError, MemoryLimitError):
            # A large or damaged object of another class is not our concern.
            check_sop_class(media_storage_sop_class(path), self.options.allow)
            raise

    def _is_windowed(self, job: Job) -> bool:
        """Return whether the output has what a screen shows; a picture states no window."""
        return self.options.windowed and not is_picture(job.source)

    def _check_acceptance(self, source: DicomSource) -> list[str]:
        options = self.options
        return check_acceptance(source.dataset, options.scale, options.allow, options.body_parts)

    def _plan(self, source: DicomSource) -> MemoryPlan:
        """Plan before the pixels take memory."""
        count, rows, columns = check_pixel_data(source)
        itemsize = PixelFormat.from_dataset(source.dataset).dtype.itemsize
        output = count * rows * columns * itemsize * self.options.scale**2
        overlays = overlay_memory(source.dataset, self.options.scale)
        factor = write_memory_factor(self.transfer_syntax(source)) + overlays / output
        return self.predictor.plan(rows, columns, itemsize, count, factor)

    def _check_free_space(self, source: DicomSource, target: Path) -> None:
        """Refuse what cannot be written before the network runs; compressed sizes are unknown."""
        if self.transfer_syntax(source) in NATIVE_SYNTAXES:
            dataset, scale = source.dataset, self.options.scale
            check_free_space(
                target,
                number_of_frames(dataset)
                * scale**2
                * (dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8),
            )

    def upscale(
        self,
        decoded: DecodedSource,
        advance: Callable[[float], None] = lambda _: None,
        *,
        noise: Sequence[NoiseCurve] | None = None,
    ) -> UpscaledFrames:
        """Run the network on every frame.

        Parameters
        ----------
        decoded : DecodedSource
            The source.
        advance : callable
            Gets the share that was done since the last call; the sum is almost 1.
        noise : sequence of NoiseCurve, optional
            Of each frame; estimated by default.

        Raises
        ------
        ModelError
            If the network makes values that are not finite.
        MemoryLimitError
            If the device has not enough memory.
        """
        dataset, scale = decoded.source.dataset, self.options.scale
        pixel_format, padding = PixelFormat.from_dataset(dataset), Padding.from_dataset(dataset)
        whole_range = pixel_range = PixelRange.from_dataset(dataset)
        if padding:
            # No value of the image may read as padding; changing one later would move block means.
            pixel_range = padding.exclude_from(whole_range)
        count, (rows, columns) = len(decoded.frames), decoded.shape
        notes, curves = list[str](), list[NoiseCurve]()
        frames = np.empty((count, rows * scale, columns * scale), pixel_format.dtype)
        for index, (frame, stored) in enumerate(zip(frames, decoded.frames, strict=True)):
            mask = padding.mask(stored) if padding else None
            filled = stored if mask is None else fill_padding(stored, mask)
            curves.append(
                noise[index] if noise else self.predictor.estimate_noise(filled, pixel_range, mask)
            )
            strips = self.predictor.predict_strips(
                filled,
                pixel_range,
                plan=decoded.plan,
                noise=curves[-1],
                advance=lambda share: advance(share / count),
                note=notes.append,
            )
            for top, strip in strips:
                rows_out = frame[top : top + len(strip)]
                rows_out[:] = strip
                if padding:
                    rows_in = stored[top // scale :][: len(strip) // scale]
                    rows_out[:] = reapply_padding(rows_out, rows_in, padding, whole_range)
        deviation = AgreementDeviation.worst_frame(frames, decoded.frames, padding, curves)
        return UpscaledFrames(decoded, frames, curves, deviation, notes)

    def write(
        self, upscaled: UpscaledFrames, before_publish: Callable[[str], None] = lambda _: None
    ) -> WrittenFile:
        """Derive the object and write it.

        Parameters
        ----------
        upscaled : UpscaledFrames
            New stored values of a source.
        before_publish : callable
            Gets the SHA-256 of the output just before the file gets its name.

        Raises
        ------
        UnsupportedImageError
            If the source's geometry cannot be rescaled.
        OutputError
            If the output cannot be written.
        """
        decoded = upscaled.decoded
        if is_picture(decoded.job.target):
            return self._write_picture(upscaled, before_publish)
        derived, warnings = self._derive(upscaled)
        written = write_dicom(
            derived,
            upscaled.frames,
            decoded.job.target,
            syntax=self.transfer_syntax(decoded.source),
            overwrite=self.options.overwrite,
            permissions=permissions_of(decoded.job.source),
            before_publish=before_publish,
        )
        return WrittenFile(written, warnings)

    def _write_picture(
        self, upscaled: UpscaledFrames, before_publish: Callable[[str], None]
    ) -> WrittenFile:
        decoded = upscaled.decoded
        job, dataset, options = decoded.job, decoded.source.dataset, self.options
        picture = output_picture(
            dataset,
            decoded.frames[0],
            upscaled.frames[0],
            scale=options.scale,
            windowed=self._is_windowed(job),
        )
        warnings = decoded.warnings + self._notes(upscaled)
        with (
            os_errors_as_output_error(job.target),
            atomic_write(
                job.target, overwrite=options.overwrite, permissions=permissions_of(job.source)
            ) as temporary,
        ):
            write_picture(picture, temporary, job.target.suffix)
            sha256 = sha256_file(temporary)
            before_publish(sha256)
            write_provenance(
                job.target,
                picture,
                source=job.source,
                source_sha256=decoded.sha256,
                picture_sha256=sha256,
                dataset=dataset,
                parameters=self.parameters,
                time=self.clock(),
                agreement=upscaled.deviation.describe(self.predictor.agreement),
                warnings=warnings,
            )
        return WrittenFile(sha256, warnings)

    def _notes(self, upscaled: UpscaledFrames) -> list[str]:
        """Return what did not go as planned."""
        decoded, deviation = upscaled.decoded, upscaled.deviation
        notes = list(upscaled.notes)
        pixel_range = PixelRange.from_dataset(decoded.source.dataset)
        if self.predictor.agreement is not Agreement.NONE and not deviation.is_within_bound(
            pixel_range
        ):
            notes.append(
                f"means of blocks differ from the source by up to {deviation.beyond:.3g} stored "
                "units more than the agreement allows"
            )
        return notes

    def _derive(self, upscaled: UpscaledFrames) -> tuple[FileDataset, list[str]]:
        decoded, deviation = upscaled.decoded, upscaled.deviation
        notes = self._notes(upscaled)
        derived, warnings = derive(
            decoded.source,
            decoded.frames,
            upscaled.frames,
            self.parameters,
            self.clock(),
            agreement=deviation.describe(self.predictor.agreement),
        )
        return derived, decoded.warnings + notes + warnings

    def transfer_syntax(self, source: DicomSource) -> UID:
        """Return the transfer syntax of a source's output."""
        return resolve_transfer_syntax(self.options.transfer_syntax, source.transfer_syntax)
