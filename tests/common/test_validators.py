"""AE titles, ports, hosts and timeouts are checked by one rule each."""

import pytest

from cxrsr_cli.common.validators import (
    is_valid_ae_title,
    is_valid_host,
    sanitize_ae_title,
    validate_ae_titles,
    validate_port,
    validate_timeouts,
)


@pytest.mark.parametrize("title", ["A", "A PEER", "~!x", "SIXTEEN_LETTERS_"])
def test_a_legal_ae_title_is_accepted_and_kept(title: str) -> None:
    assert is_valid_ae_title(title)
    assert sanitize_ae_title(title) == title


@pytest.mark.parametrize("title", ["", "   ", " A", "A ", "A\\B", "ü", "A\nB", "SEVENTEEN_LETTERS"])
def test_an_illegal_ae_title_is_refused_by_its_name(title: str) -> None:
    with pytest.raises(ValueError, match="called_ae must be 1 to 16 printable ASCII characters"):
        validate_ae_titles(called_ae=title)


def test_ports_hosts_and_timeouts_have_bounds() -> None:
    validate_port(0, min_port=0)
    for port in (0, -1, 65536):
        with pytest.raises(ValueError, match="commitment_port must be from 1 to 65535"):
            validate_port(port, "commitment_port")
    for seconds in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="timeout must be above 0 and finite"):
            validate_timeouts(timeout=seconds)
    hosts = {"pacs.example": True, "::1": True, "": False, "..": False, "a b": False}
    assert {host: is_valid_host(host) for host in hosts} == hosts
