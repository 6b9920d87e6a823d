"""A machine that does not run Linux says so, instead of failing at some call."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

import afarm
from afarm._monitor.kernel import why_no_node
from afarm._wire import messages as m
from afarm.transport import local
from tests.agent.driver import Driver
from tests.elsewhere import as_on


@pytest.mark.parametrize("system", ["darwin", "Darwin", "freebsd14", "FreeBSD", "win32"])
def test_other_kernels_cannot_serve(system: str) -> None:
    why = why_no_node(system)
    assert system in why
    assert "Linux" in why


def test_linux_serves() -> None:
    assert why_no_node("linux") == why_no_node("Linux") == ""


@pytest.mark.parametrize("platform", ["darwin", "freebsd14"])
def test_an_agent_elsewhere_says_why_it_does_not_serve(tmp_path: Path, platform: str) -> None:
    with closing(Driver(tmp_path, executable=as_on(platform, tmp_path))) as driver:
        farewell = driver.wait_for(m.Farewell)
        assert farewell.reason == why_no_node(platform)
        assert driver.process.wait(10) == 0
        assert not list(driver.of(m.Hello))


async def test_a_farm_says_it_of_such_a_node(tmp_path: Path) -> None:
    python = as_on("darwin", tmp_path)
    with pytest.raises(afarm.NoNodesError, match=r"far: .*it runs darwin, and a node must run"):
        async with afarm.Farm([afarm.CommandNode(["env"], python=python, name="far")]):
            pass


async def test_a_local_farm_elsewhere_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.sys, "platform", "darwin")
    with pytest.raises(afarm.NoNodesError, match="local: it runs darwin, and a node must run Lin"):
        async with afarm.Farm():
            pass
