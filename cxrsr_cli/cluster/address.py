"""The address of a cluster, as the user gives it."""

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cxrsr_cli.errors import ConfigError, MissingExtraError, UsageError

_MAX_LOCAL_PROCESSES = 256


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """A scheduler, or how many processes to start on this machine.

    Attributes
    ----------
    scheduler : str or None
        ``tcp://HOST:PORT`` or ``tls://HOST:PORT``.
    processes : int
        How many to start if there is no scheduler.
    """

    scheduler: str | None
    processes: int = 0

    @classmethod
    def parse(cls, text: str) -> "ClusterAddress":
        """Read ``tcp://HOST:PORT``, ``tls://HOST:PORT``, ``local:N`` or the path of a file.

        Raises
        ------
        UsageError, ConfigError, MissingExtraError
            If it is none of these, the file is no scheduler file, or Dask is not installed.
        """
        if not text:
            raise UsageError("--cluster is empty; is a variable not set?")
        if find_spec("distributed") is None:
            raise MissingExtraError("--cluster needs Dask: pip install 'cxrsr[cluster]'")
        local = re.fullmatch(r"local:([0-9]{1,4})", text)
        if local and 1 <= int(local[1]) <= _MAX_LOCAL_PROCESSES:
            return cls(None, int(local[1]))
        if _is_scheduler(text):
            return cls(text)
        if text.endswith(".json"):
            return cls(_read_scheduler_file(Path(text)))
        raise UsageError(
            f"--cluster '{text}' is none of tcp://HOST:PORT, tls://HOST:PORT, "
            f"local:N (1 to {_MAX_LOCAL_PROCESSES} processes) and FILE.json"
        )


def _is_scheduler(text: str) -> bool:
    return bool(re.fullmatch(r"(tcp|tls)://[^\s/]+:[0-9]{1,5}", text))


def _read_scheduler_file(path: Path) -> str:
    """Read the address from what a scheduler wrote with ``--scheduler-file``.

    Dask reads such a file, too (`Client(scheduler_file=...)`), but waits for it without end.
    """
    try:
        address = json.loads(path.read_text(encoding="utf-8"))["address"]
    except OSError as error:
        raise UsageError(
            f"cannot read the scheduler file {path}: {error.strerror}; is the scheduler running?"
        ) from error
    except (ValueError, KeyError, TypeError):
        address = None
    if not (isinstance(address, str) and _is_scheduler(address)):
        raise ConfigError(f"{path} is not a scheduler file of Dask: it has no valid address")
    return address
