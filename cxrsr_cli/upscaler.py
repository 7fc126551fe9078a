"""Read, upscale, derive and write one file."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from cxrsr_cli import __version__
from cxrsr_cli.common.files import ensure_unchanged, sha256_file
from cxrsr_cli.common.process import now
from cxrsr_cli.derive.derive import derive
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.acceptance import check_acceptance
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.pixel_format import Padding, PixelFormat, fill_padding, reapply_padding
from cxrsr_cli.dicom.source import DicomSource, read_source
from cxrsr_cli.dicom.transfer_syntax import resolve_transfer_syntax, write_memory_factor
from cxrsr_cli.dicom.write import check_target, write_dicom
from cxrsr_cli.inference.consistency_error import ConsistencyDeviation
from cxrsr_cli.inference.memory_plan import MemoryPlan
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.model_files import ModelFile
from cxrsr_cli.options import Job, UpscaleOptions

_MAX_ROUNDING_RMS = 1.0
"""Deviation in stored units that rounding alone never reaches."""


@dataclass(frozen=True, slots=True)
class DecodedSource:
    """A source that was accepted, and its stored values.

    Attributes
    ----------
    job : Job
        The input and the output.
    source : DicomSource
        The object.
    sha256 : str
        SHA-256 of the file.
    frames : numpy.ndarray
        ``(F, H, W)`` int32 stored values.
    plan : MemoryPlan
        How the frames are divided into strips.
    warnings : list of str
        What the user should know of the source, without patient data.
    """

    job: Job
    source: DicomSource
    sha256: str
    frames: NDArray[np.int32]
    plan: MemoryPlan
    warnings: list[str]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.frames.shape[-2:]
        return rows, columns


@dataclass(frozen=True, slots=True)
class UpscaledFrames:
    """New stored values of a source.

    Attributes
    ----------
    decoded : DecodedSource
        The source.
    frames : numpy.ndarray
        ``(F, scale * H, scale * W)`` stored values, of `PixelFormat.dtype`.
    deviation : ConsistencyDeviation
        Of the worst frame.
    notes : list of str
        What did not go as planned.
    """

    decoded: DecodedSource
    frames: NDArray[np.integer]
    deviation: ConsistencyDeviation
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that was written.

    Attributes
    ----------
    sha256 : str
        SHA-256 of the file.
    warnings : list of str
        What the user should know of the output, without patient data.
    """

    sha256: str
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Upscaler:
    """A loaded model and the options that it is run with.

    Attributes
    ----------
    predictor : Predictor
        The network on its device.
    model : ModelFile
        The weights file, for the provenance.
    options : UpscaleOptions
        Resolved: nothing in them is left to model or machine.
    clock : callable
        Gives the time of derivation, with its time zone.
    """

    predictor: Predictor
    model: ModelFile
    options: UpscaleOptions
    clock: Callable[[], datetime] = now

    @classmethod
    def load(
        cls,
        model: ModelFile,
        options: UpscaleOptions | None = None,
        *,
        clock: Callable[[], datetime] = now,
    ) -> Self:
        """Load a model.

        Parameters
        ----------
        model : ModelFile
            The weights file. It decides the scale.
        options : UpscaleOptions, optional
            How the model is run; the defaults if not given.
        clock : callable
            Gives the time of derivation, with its time zone.

        Raises
        ------
        ModelError, DeviceError
            As `Predictor.load`.
        """
        options = options or UpscaleOptions()
        predictor = Predictor.load(
            model.path,
            device=options.device,
            precision=options.precision,
            memory=options.memory,
            consistent=options.consistency,
            ensemble=options.self_ensemble,
        )
        resolved = replace(
            options,
            scale=predictor.architecture.scale,
            model=model.name,
            device=str(predictor.device),
            precision=predictor.precision,
            consistency=predictor.consistency,
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
        )

    def read(self, job: Job) -> DecodedSource:
        """Read a source, and check it and its target before any work is done.

        Parameters
        ----------
        job : Job
            The input and the output.

        Returns
        -------
        DecodedSource
            The source, decoded.

        Raises
        ------
        InputError
            If the source cannot be upscaled.
        OutputError
            If the output could not be written.
        """
        if job.error:
            raise job.error
        check_target(job.source, job.target, overwrite=self.options.overwrite)
        with ensure_unchanged(job.source):
            source = read_source(job.source)
            warnings = check_acceptance(source.dataset, self.options.scale, self.options.allow)
            sha256, frames = sha256_file(job.source), decode(source)
        itemsize = PixelFormat.from_dataset(source.dataset).dtype.itemsize
        count, rows, columns = frames.shape
        factor = write_memory_factor(self._transfer_syntax(source))
        plan = self.predictor.plan(rows, columns, itemsize, count, factor)
        return DecodedSource(job, source, sha256, frames, plan, warnings)

    def upscale(
        self, decoded: DecodedSource, advance: Callable[[float], None] = lambda _: None
    ) -> UpscaledFrames:
        """Run the network on every frame.

        Parameters
        ----------
        decoded : DecodedSource
            The source.
        advance : callable
            Gets the share of the source that was done since the last call; the sum is
            almost 1.

        Returns
        -------
        UpscaledFrames
            New stored values.

        Raises
        ------
        ModelError
            If the network makes values that are not finite.
        MemoryLimitError
            If the device has not enough memory.
        """
        dataset, scale = decoded.source.dataset, self.options.scale
        pixel_format, padding = PixelFormat.from_dataset(dataset), Padding.from_dataset(dataset)
        minimum, maximum = pixel_format.minimum, pixel_format.maximum
        count, (rows, columns) = len(decoded.frames), decoded.shape
        notes = list[str]()
        frames = np.empty((count, rows * scale, columns * scale), pixel_format.dtype)
        for frame, stored in zip(frames, decoded.frames, strict=True):
            strips = self.predictor.predict_strips(
                fill_padding(stored, padding.mask(stored)) if padding else stored,
                plan=decoded.plan,
                minimum=minimum,
                maximum=maximum,
                inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
                advance=lambda share: advance(share / count),
                note=notes.append,
            )
            for top, strip in strips:
                rows_out = frame[top : top + len(strip)]
                rows_out[:] = strip
                if padding:
                    rows_in = stored[top // scale :][: len(strip) // scale]
                    rows_out[:] = reapply_padding(
                        rows_out, rows_in, padding, minimum=minimum, maximum=maximum
                    )
        deviation = ConsistencyDeviation.of_worst(frames, decoded.frames, padding)
        return UpscaledFrames(decoded, frames, deviation, notes)

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

        Returns
        -------
        WrittenFile
            What was written.

        Raises
        ------
        UnsupportedImageError
            If the source's geometry cannot be rescaled.
        OutputError
            If the output cannot be written.
        """
        decoded = upscaled.decoded
        derived, warnings = derive(
            decoded.source, decoded.frames, upscaled.frames, self.parameters, self.clock()
        )
        sha256 = write_dicom(
            derived,
            upscaled.frames,
            decoded.job.target,
            syntax=self._transfer_syntax(decoded.source),
            overwrite=self.options.overwrite,
            before_publish=before_publish,
        )
        if self.options.consistency and upscaled.deviation.rms > _MAX_ROUNDING_RMS:
            warnings.append(
                f"downsampled, the output is {upscaled.deviation.rms:.1f} stored units RMS off "
                "the input; edges between the two ends of the stored range are the usual cause"
            )
        return WrittenFile(sha256, decoded.warnings + upscaled.notes + warnings)

    def _transfer_syntax(self, source: DicomSource) -> UID:
        return resolve_transfer_syntax(self.options.transfer_syntax, source.transfer_syntax)
