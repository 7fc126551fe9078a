"""What travels: a sealed errand to a worker, a sealed answer back.

Imported by the scheduler, too, which unpickles a task's arguments; so it
imports nothing, and what is sealed is opened by client and worker only.
"""

import pickle
from typing import Any

from cxrsr_cli import __version__


class VersionedPickle:
    """Values on their way, with the version of cxrsr that packed them.

    Its text says nothing: Dask logs a task's arguments when the task fails,
    and shows them to whoever asks the scheduler.

    Parameters
    ----------
    version : str
        Whoever has another must not open it: classes change.
    content : bytes
        Pickled.
    """

    __slots__ = ("content", "version")

    def __init__(self, version: str, content: bytes) -> None:
        self.version = version
        self.content = content

    def __repr__(self) -> str:
        return "<sealed>"

    def __reduce__(self) -> tuple[type["VersionedPickle"], tuple[str, bytes]]:
        return VersionedPickle, (self.version, self.content)


def pack(value: object) -> VersionedPickle:
    """Pack a value."""
    return VersionedPickle(__version__, pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))


def unpack(sealed: VersionedPickle) -> Any:  # noqa: ANN401 - who opens it knows
    """Unpack a value that this version packed."""
    # Who can send to a Dask cluster can run anything there: docs/scale.md.
    return pickle.loads(sealed.content)  # noqa: S301


def handle_packed_request(sealed: VersionedPickle) -> VersionedPickle:
    """Do an errand on a worker; one of another version is sent back unopened."""
    if sealed.version != __version__:
        return VersionedPickle(__version__, b"")
    from cxrsr_cli.cluster.worker import handle_request

    return pack(handle_request(unpack(sealed)))
