"""``cxrsr info``."""

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cxrsr_cli.networks.model_files import bundled_models
from cxrsr_cli.versions import NOTICE, optional_features, versions


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Show versions, devices, optional features, codecs and models."""
    facts = _facts()
    typer.echo(json.dumps(facts, indent=2) if as_json else _text(facts))


def _facts() -> dict[str, Any]:
    return {
        "notice": NOTICE,
        "versions": versions(),
        "devices": _devices(),
        "services": [asdict(service) for service in optional_features()],
        "codecs": _codecs(),
        "models": [
            {
                "name": model.name,
                "scale": model.metadata.scale,
                "network": model.metadata.architecture["network"],
                "parameters": model.metadata.complexity.parameters,
                "macs_per_input_pixel": model.metadata.complexity.macs,
                "architecture": model.metadata.architecture,
                "agreement": model.metadata.agreement.value,
                "data": model.metadata.data,
                "steps": model.metadata.steps,
                "sha256": model.sha256,
            }
            for model in bundled_models()
        ],
    }


def _devices() -> list[str]:
    """List the devices that drivers show; importing torch would take seconds."""
    devices = [f"cpu ({os.cpu_count()} cores)"]
    for index, card in enumerate(sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))):
        lines = card.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if "Model" in line), "")
        devices.append(f"cuda:{index} ({name})")
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        devices.append("mps")
    return devices


def _codecs() -> dict[str, bool]:
    """Return whether each transfer syntax for images can be read."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import AllTransferSyntaxes

    from cxrsr_cli.dicom.codecs import DECODER_DEPENDENCIES, is_available

    codecs = {}
    for syntax in AllTransferSyntaxes:
        try:
            readable = get_decoder(syntax).is_available
            # pydicom's own decoders read JPEG Extended of 8 bits; radiographs have 12.
            if syntax in DECODER_DEPENDENCIES:
                readable = readable and is_available(syntax)
            codecs[syntax.name] = readable
        except NotImplementedError:
            continue
    return codecs


def _services(services: list[dict[str, str | None]]) -> str:
    installed = [
        f"{one['name']} ({one['package']} {one['version']})" for one in services if one["version"]
    ]
    missing = [one for one in services if not one["version"]]
    parts = [", ".join(installed)] if installed else []
    if missing:
        names = ", ".join(str(one["name"]) for one in missing)
        extras = ",".join(str(one["extra"]) for one in missing)
        parts.append(f"missing: {names} (pip install 'cxrsr[{extras}]')")
    return "; ".join(parts)


def _text(facts: dict[str, Any]) -> str:
    lines = [
        ", ".join(f"{name} {number or '-'}" for name, number in facts["versions"].items()),
        facts["notice"],
        "",
        "Devices: " + ", ".join(facts["devices"]),
        "Services: " + _services(facts["services"]),
        "",
        "Transfer syntaxes read:",
        *(
            f"  {'yes' if readable else 'no '}  {name}"
            for name, readable in facts["codecs"].items()
        ),
        "",
        "Models:",
        *(
            f"  {model['name']}: {model['network']}, {model['parameters']:,} parameters, "
            f"{model['macs_per_input_pixel']:,} MACs per input pixel, "
            f"image skip {model['architecture']['image_skip']}, "
            f"agreement {model['agreement']}, "
            f"{'impulse noise removed, ' if model['architecture'].get('impulse_filter') else ''}"
            f"{model['steps']} steps, SHA-256 {model['sha256'][:12]}\n    {model['data']}"
            for model in facts["models"]
        ),
    ]
    return "\n".join(lines)
