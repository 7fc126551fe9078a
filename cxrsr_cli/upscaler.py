"""The main job on one file: read, restore, derive, write."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from cxrsr_cli import __version__
from cxrsr_cli.common.files import ensure_unchanged, sha256_file
from cxrsr_cli.common.process import now
from cxrsr_cli.derive.derive import derive
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.acceptance import AcceptanceOverride, check_acceptance
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.pixel_format import (
    Padding,
    PixelFormat,
    PixelRange,
    fill_padding,
    reapply_padding,
)
from cxrsr_cli.dicom.source import DicomSource, read_source
from cxrsr_cli.dicom.transfer_syntax import (
    OutputTransferSyntax,
    resolve_transfer_syntax,
    write_memory_factor,
)
from cxrsr_cli.dicom.write import check_target, write_dicom
from cxrsr_cli.inference.data_consistency import ConsistencyDeviation
from cxrsr_cli.inference.memory_plan import MemoryPlan
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.model_files import ModelFile
from cxrsr_cli.options import Job, RunInfo

_CONSISTENT = 1.0
"""Stored units RMS that rounding alone never reaches."""


@dataclass(frozen=True, slots=True)
class DecodedSource:
    """A source that was found fit, and its stored values.

    Attributes
    ----------
    job : Job
        The job.
    source : Source
        The object.
    sha256 : str
        Of the file.
    frames : numpy.ndarray
        ``(F, H, W)`` int32 stored values.
    plan : Plan
        How they will be worked on.
    warnings : list of str
        What was accepted with reserve.
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
    opened : Opened
        What they come from.
    frames : numpy.ndarray
        ``(F, scale * H, scale * W)`` stored values, of `PixelFormat.dtype`.
    deviation : Deviation
        Of the worst frame.
    notes : list of str
        What went otherwise than planned.
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
        Of the file.
    warnings : list of str
        What was done with reserve, free of patient data.
    """

    sha256: str
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Upscaler:
    """A loaded model and the user's choices.

    Attributes
    ----------
    restorer : Restorer
        The network at work.
    model : Model
        Where it came from, for the provenance.
    allowed : frozenset of Permission
        What is accepted beyond chest radiographs for presentation.
    overwrite : bool
        Whether existing outputs are replaced.
    syntax : OutputSyntax
        Transfer syntax of outputs.
    keep_private : bool
        Whether private elements are copied.
    series_description : str or None
        Stands before "not for diagnosis" (`validate_series_description`).
    clock : callable
        Gives the time of derivation, with its zone.
    """

    predictor: Predictor
    model: ModelFile
    allowed: frozenset[AcceptanceOverride] = frozenset()
    overwrite: bool = False
    syntax: OutputTransferSyntax = OutputTransferSyntax.SAME
    keep_private: bool = True
    series_description: str | None = None
    clock: Callable[[], datetime] = now

    @property
    def profile(self) -> RunInfo:
        """What accounts say of this beside the files."""
        return RunInfo(
            recipe=self.recipe,
            device=str(self.predictor.device),
            allowed=self.allowed,
            syntax=self.syntax,
            overwrite=self.overwrite,
        )

    @property
    def recipe(self) -> DerivationParameters:
        """Everything that decides an output beside its input and the time."""
        return DerivationParameters(
            software=__version__,
            model_name=self.model.name,
            model_sha256=self.model.sha256,
            scale=self.predictor.architecture.scale,
            consistency=self.predictor.consistency,
            precision=self.predictor.precision,
            device=self.predictor.device.type,
            memory=self.predictor.memory,
            ensemble=self.predictor.self_ensemble,
            impulse_filter=self.predictor.architecture.impulse_filter,
            keep_private=self.keep_private,
            series_description=self.series_description,
        )

    def read(self, job: Job) -> DecodedSource:
        """Read a source and everything that could be said against upscaling it.

        Parameters
        ----------
        job : Job
            From where to where.

        Returns
        -------
        Opened
            The source, decoded.

        Raises
        ------
        InputError
            If the source is not to be upscaled.
        OutputError
            If the output could not be written.
        """
        if job.error:
            raise job.error
        check_target(job.source, job.target, overwrite=self.overwrite)
        with ensure_unchanged(job.source):
            source = read_source(job.source)
            warnings = check_acceptance(source.dataset, self.recipe.scale, self.allowed)
            sha256, frames = sha256_file(job.source), decode(source)
        itemsize = PixelFormat.from_dataset(source.dataset).dtype.itemsize
        count, rows, columns = frames.shape
        written = write_memory_factor(resolve_transfer_syntax(self.syntax, source.transfer_syntax))
        plan = self.predictor.plan(rows, columns, itemsize, count, written)
        return DecodedSource(job, source, sha256, frames, plan, warnings)

    def upscale(
        self, opened: DecodedSource, advance: Callable[[float], None] = lambda _: None
    ) -> UpscaledFrames:
        """Run the network on every frame.

        Parameters
        ----------
        opened : Opened
            A decoded source.
        advance : callable
            Told of progress; the shares of one source add up to almost 1.

        Returns
        -------
        Restored
            New stored values.

        Raises
        ------
        ModelError
            If the network makes values that are not finite.
        TooLargeError
            If the device has not the memory.
        """
        dataset, scale = opened.source.dataset, self.recipe.scale
        pixel_format, padding = PixelFormat.from_dataset(dataset), Padding.from_dataset(dataset)
        pixel_range = PixelRange.from_dataset(dataset)
        count, (rows, columns) = len(opened.frames), opened.shape
        notes = list[str]()
        frames = np.empty((count, rows * scale, columns * scale), pixel_format.dtype)
        for frame, stored in zip(frames, opened.frames, strict=True):
            bands = self.predictor.predict_strips(
                fill_padding(stored, padding.mask(stored)) if padding else stored,
                pixel_range,
                plan=opened.plan,
                advance=lambda share: advance(share / count),
                note=notes.append,
            )
            for top, band in bands:
                place = frame[top : top + len(band)]
                place[:] = band
                if padding:
                    below = stored[top // scale :][: len(band) // scale]
                    place[:] = reapply_padding(place, below, padding, pixel_range)
        deviation = ConsistencyDeviation.worst_frame(frames, opened.frames, padding)
        return UpscaledFrames(opened, frames, deviation, notes)

    def write(
        self, restored: UpscaledFrames, announce: Callable[[str], None] = lambda _: None
    ) -> WrittenFile:
        """Derive the object and write it.

        Parameters
        ----------
        restored : Restored
            New stored values of a source.
        announce : callable
            Told the SHA-256 of the output just before it gets its name.

        Returns
        -------
        Output
            What was written.

        Raises
        ------
        UnsupportedImageError
            If the source's geometry cannot be rescaled.
        OutputError
            If the output cannot be written.
        """
        opened = restored.decoded
        derived, kept = derive(
            opened.source, opened.frames, restored.frames, self.recipe, self.clock()
        )
        sha256 = write_dicom(
            derived,
            restored.frames,
            opened.job.target,
            syntax=resolve_transfer_syntax(self.syntax, opened.source.transfer_syntax),
            overwrite=self.overwrite,
            before_publish=announce,
        )
        if self.predictor.consistency and restored.deviation.rms > _CONSISTENT:
            kept.append(
                f"downsampled, the output is {restored.deviation.rms:.1f} stored units RMS off "
                "the input; edges between the two ends of the stored range are the usual cause"
            )
        return WrittenFile(sha256, opened.warnings + restored.notes + kept)
