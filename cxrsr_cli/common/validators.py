"""Checks of values that users and peers give: AE titles, ports, hosts, timeouts."""

MAX_PORT = 65535
_MAX_AE_TITLE_LENGTH = 16
_MAX_TIMEOUT_SECONDS = 1e9
"""The longest timeout that sockets take."""


def is_valid_ae_title(text: str) -> bool:
    """Return whether a text is an AE title (PS3.5 table 6.2-1, VR AE) without padding."""
    return 0 < len(text) <= _MAX_AE_TITLE_LENGTH and text == sanitize_ae_title(text, "")


def sanitize_ae_title(title: str, replacement: str = "?") -> str:
    """Return a title without characters that are illegal in it and could forge log lines."""
    legal = (one if " " <= one <= "~" and one != "\\" else replacement for one in title)
    return "".join(legal)[:_MAX_AE_TITLE_LENGTH].strip()


def validate_ae_titles(**titles: str) -> None:
    """Raise ValueError, which gives the name, for a title that is not a valid AE title."""
    for name, title in titles.items():
        if not is_valid_ae_title(title):
            raise ValueError(
                f"{name} must be 1 to 16 printable ASCII characters without a backslash "
                "and without a blank at either end"
            )


def validate_port(port: int, name: str = "port", *, min_port: int = 1) -> None:
    """Raise ValueError, which gives the name, for a number that is not a TCP port."""
    if not min_port <= port <= MAX_PORT:
        raise ValueError(f"{name} must be from {min_port} to {MAX_PORT}")


def is_valid_host(text: str) -> bool:
    """Return whether a text can be a host name or address; sockets raise odd errors for others."""
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return text.isprintable() and not set(text) <= {"."} and " " not in text


def validate_timeouts(**timeouts: float) -> None:
    """Raise ValueError, which gives the name, for a timeout that is not positive and finite."""
    for name, seconds in timeouts.items():
        if not 0 < seconds <= _MAX_TIMEOUT_SECONDS:
            raise ValueError(f"{name} must be above 0 and finite")
