"""What time it is."""

from datetime import datetime


def local_time() -> datetime:
    """Return the time now, with its zone."""
    return datetime.now().astimezone()
