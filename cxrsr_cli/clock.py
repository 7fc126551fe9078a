"""What time it is."""

from datetime import datetime


def now() -> datetime:
    """Return the time now, with its zone."""
    return datetime.now().astimezone()
