"""How requests and responses travel: pickled, so that Dask's processes do not open them.

Dask's scheduler unpickles the arguments of every task. This module therefore imports neither
torch nor another module of the cluster; only client and worker unpack.
"""

import pickle
from dataclasses import dataclass
from typing import Any

from cxrsr_cli import __version__


@dataclass(frozen=True, slots=True, repr=False)
class VersionedPickle:
    """A pickled value, and the version of cxrsr that packed it.

    Dask compares versions when a client connects (`Client.get_versions`), but a worker of
    another version can join later. Its text shows no content: Dask logs the arguments of a
    task that fails.

    Attributes
    ----------
    version : str
        Another version must not unpack it, because classes change.
    content : bytes
        The pickle.
    """

    version: str
    content: bytes


def pack(value: object) -> VersionedPickle:
    """Pack a value."""
    return VersionedPickle(__version__, pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))


def unpack(packed: VersionedPickle) -> Any:  # noqa: ANN401 - the caller knows the type
    """Unpack a value that this version packed."""
    # Anyone who can send to a Dask cluster can run any code there: docs/scale.md.
    return pickle.loads(packed.content)  # noqa: S301


def handle_packed_request(packed: VersionedPickle, weights: bytes) -> VersionedPickle:
    """Do what a request says, on a worker; answer another version with an empty response."""
    if packed.version != __version__:
        return VersionedPickle(__version__, b"")
    from cxrsr_cli.cluster.worker import handle_request

    return pack(handle_request(unpack(packed), weights))
