"""One entry point for the platforms that hand a container two folders.

It runs ``cxrsr upscale IN OUT`` for whichever of these pairs is set:

==================  ========================  =========================
mercure             ``MERCURE_IN_DIR``        ``MERCURE_OUT_DIR``
MONAI Deploy        ``MONAI_INPUTPATH``       ``MONAI_OUTPUTPATH``
Holoscan            ``HOLOSCAN_INPUT_PATH``   ``HOLOSCAN_OUTPUT_PATH``
anything else       ``CXRSR_INPUT``           ``CXRSR_OUTPUT``
==================  ========================  =========================

and hands over its exit code as it is: 0 only if every image was upscaled. All platforms take any
other for a failure, 4 ("some failed") too; what was done lies in OUT then, and is theirs to drop.

Options: ``CXRSR_SCALE``, ``CXRSR_MODEL``, ``CXRSR_MEMORY``, ``CXRSR_DEVICE``, ``CXRSR_REPORT``,
``CXRSR_LEDGER`` are those of the same name; ``CXRSR_OPTIONS`` holds more, quoted as in a shell;
``CXRSR_COMMAND`` is the command if it is not ``cxrsr``.

JSON files in IN (mercure's task.json, MONAI's metadata of each instance) are the platform's and
no images: they are left out, and mercure passes its own on. OUT gets derived objects and nothing
else, because platforms send what they find there: no ledger unless ``CXRSR_LEDGER`` names one.

Needs a writable folder for temporary files, if only for links to the inputs: with a read-only
root, ``--tmpfs /tmp``.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

PAIRS = (
    ("MERCURE_IN_DIR", "MERCURE_OUT_DIR"),
    ("MONAI_INPUTPATH", "MONAI_OUTPUTPATH"),
    ("HOLOSCAN_INPUT_PATH", "HOLOSCAN_OUTPUT_PATH"),
    ("CXRSR_INPUT", "CXRSR_OUTPUT"),
)
OPTIONS = ("SCALE", "MODEL", "MEMORY", "DEVICE", "REPORT", "LEDGER")
# As `cxrsr` means them.
_USAGE, _NOTHING_DONE, _CANNOT_WRITE = 2, 5, 6


class UsageError(Exception):
    """The environment does not say what to do."""


class InputError(Exception):
    """The inputs cannot be listed."""


def folders(environment: Mapping[str, str]) -> tuple[Path, Path]:
    """Return where inputs come from and outputs go to."""
    given = [
        (names, [environment.get(name, "") for name in names])
        for names in PAIRS
        if any(environment.get(name) for name in names)
    ]
    for names, values in given:
        for name, value in zip(names, values, strict=True):
            if not value:
                raise UsageError(f"{name} is not set, but the other of {' and '.join(names)} is")
    # Platforms that grew from each other set several pairs to the same folders.
    pairs = {(Path(source).resolve(), Path(target).resolve()) for _, (source, target) in given}
    if len(pairs) != 1:
        known = ", ".join("/".join(names) for names in PAIRS)
        wrong = "lead to different folders" if pairs else "are not set"
        raise UsageError(f"{known} {wrong}; set one pair")
    return pairs.pop()


def command(environment: Mapping[str, str]) -> list[str]:
    """Return the command with its options, without its folders."""
    words = [environment.get("CXRSR_COMMAND") or "cxrsr", "upscale", "--no-progress"]
    for name in OPTIONS:
        if value := environment.get(f"CXRSR_{name}"):
            words += [f"--{name.lower()}", value]
    if not environment.get("CXRSR_LEDGER"):
        words.append("--no-ledger")
    try:
        return words + shlex.split(environment.get("CXRSR_OPTIONS", ""))
    except ValueError:
        raise UsageError("CXRSR_OPTIONS has a quotation mark without its other one") from None


def link(source: Path, links: Path) -> None:
    """Mirror a folder by links to its files, but those of the platform."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.strerror}: {error.filename}")

    for parent, _, names in os.walk(source, onerror=refuse):
        folder = links / Path(parent).relative_to(source)
        folder.mkdir()
        for name in names:
            if not name.lower().endswith(".json"):
                (folder / name).symlink_to(Path(parent, name))


def run(words: list[str]) -> int:
    """Run a command; hand signals on, and return a code as a shell would."""
    try:
        process = subprocess.Popen(words)
    except FileNotFoundError:
        raise UsageError("CXRSR_COMMAND leads to no program") from None

    def hand_on(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    # As the first process of a container, it would not feel signals that it does not handle.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, hand_on)
    code = process.wait()
    return code if code >= 0 else 128 - code


def main() -> int:
    """Return the exit code."""
    try:
        source, target = folders(os.environ)
        words = command(os.environ)
        with tempfile.TemporaryDirectory(prefix="cxrsr-") as temporary:
            links = Path(temporary, "in")
            link(source, links)
            return run([*words, str(links), str(target)])
    except UsageError as error:
        print(f"cxrsr: {error}", file=sys.stderr)
        return _USAGE
    except InputError as error:
        print(f"cxrsr: {error}", file=sys.stderr)
        return _NOTHING_DONE
    except OSError as error:
        print(f"cxrsr: {error.strerror}: {error.filename}", file=sys.stderr)
        return _CANNOT_WRITE


if __name__ == "__main__":
    sys.exit(main())
