"""``cxrsr verify``."""

import json
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrsr_cli.errors import ExitCode

if TYPE_CHECKING:
    from cxrsr_cli.verify.verify import VerificationReport

_MIN_LR_PSNR = 45.0
"""dB; the limit of NTIRE 2021 for super-resolution that is consistent with its input."""


def verify(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The original file.")],
    derived: Annotated[
        Path, typer.Argument(metavar="DERIVED", help="The file that was derived from it.")
    ],
    min_lr_psnr: Annotated[
        float,
        typer.Option(
            metavar="DB", help="Least PSNR of the downsampled derived image against the source."
        ),
    ] = _MIN_LR_PSNR,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only the checks that fail.")
    ] = False,
) -> None:
    """Check a derived object against its source.

    Checks provenance, content, geometry and photometric meaning, and that the
    downsampled output matches the source. Exit codes: 0 all checks hold, 5 a file
    cannot be read, 9 a check fails.
    """
    from cxrsr_cli.verify.verify import verify as audit

    verification = audit(source, derived, min_lr_psnr=min_lr_psnr)
    if as_json:
        typer.echo(json.dumps(_facts(verification), indent=2))
    else:
        for finding in verification.findings:
            if not (quiet and finding.holds):
                word = "holds" if finding.holds else "FAILS"
                detail = f": {finding.detail}" if finding.detail else ""
                typer.echo(f"{word}  {finding.aspect:<11}  {finding.claim}{detail}")
    raise typer.Exit(ExitCode.OK if verification.holds else ExitCode.VERIFICATION)


def _facts(verification: "VerificationReport") -> dict[str, Any]:
    psnr = verification.lr_psnr
    return {
        "schema": "cxrsr-verification/1",
        "holds": verification.holds,
        "scale": verification.scale,
        "deviation": asdict(verification.deviation),
        "lr_psnr": psnr if isfinite(psnr) else None,
        "findings": [asdict(finding) for finding in verification.findings],
    }
