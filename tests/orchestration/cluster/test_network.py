"""Which interface the workers of a trial on several nodes take."""

from __future__ import annotations

import os

import pytest

from study.basics.errors import ResourceError
from study.orchestration.cluster.network import interface_of, interfaces, use_interface

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    return monkeypatch


def chosen() -> tuple[str | None, ...]:
    return tuple(os.environ.get(v) for v in VARIABLES)


def test_the_interface_of_an_address_is_found() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.77") is None
    assert "127.0.0.1" in interfaces()["lo"]


def test_without_a_name_it_is_the_one_by_whose_address_ray_knows_the_node(
    environment: pytest.MonkeyPatch,
) -> None:
    use_interface(None, "127.0.0.1")
    assert chosen() == ("lo", "=lo")


def test_an_address_that_no_interface_has_leaves_the_choice_to_the_libraries(
    environment: pytest.MonkeyPatch,
) -> None:
    use_interface(None, "203.0.113.77")
    assert chosen() == (None, None)


def test_what_the_machines_owner_has_chosen_stays_unless_the_study_names_one(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("NCCL_SOCKET_IFNAME", "ib")
    use_interface(None, "127.0.0.1")
    assert chosen() == ("lo", "ib")
    use_interface("lo", "203.0.113.77")
    assert chosen() == ("lo", "=lo")


def test_an_interface_that_a_host_lacks_is_refused_with_those_it_has(
    environment: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ResourceError, match=r"has no interface eth77, but .*lo"):
        use_interface("eth77", "127.0.0.1")
    assert chosen() == (None, None)
