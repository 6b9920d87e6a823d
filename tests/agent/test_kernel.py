"""A machine that does not run Linux says so, instead of failing at some call."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import pytest

import afarm
from afarm._monitor.kernel import why_no_node
from afarm._wire import messages as m
from afarm.transport import local
from tests.agent.driver import Driver

# What Python does not have elsewhere.
LINUX_ALONE = (
    ("fcntl", "F_SETPIPE_SZ"),
    ("os", "memfd_create MFD_CLOEXEC pidfd_open sched_getaffinity posix_fadvise"),
    ("resource", "prlimit"),
    ("select", "epoll EPOLLIN"),
    ("signal", "pidfd_send_signal"),
    ("socket", "SO_PEERCRED"),
)


@pytest.mark.parametrize("system", ["darwin", "Darwin", "freebsd14", "FreeBSD", "win32"])
def test_other_kernels_cannot_serve(system: str) -> None:
    why = why_no_node(system)
    assert system in why
    assert "Linux" in why


def test_linux_serves() -> None:
    assert why_no_node("linux") == why_no_node("Linux") == ""


def as_on(platform: str, folder: Path) -> str:
    """Return an interpreter that believes to be on another platform, as far as agents ask."""
    lacks = "".join(
        f"import {module}\nfor name in '{names}'.split(): vars({module}).pop(name, None)\n"
        for module, names in LINUX_ALONE
    )
    prelude = folder / "prelude.py"
    prelude.write_text(f"import sys\nsys.platform = {platform!r}\n{lacks}")
    wrapper = folder / "python"
    first = f"exec(open({str(prelude)!r}).read())"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$1" "$2" "$3" "{first};$4"\n')
    wrapper.chmod(0o755)
    return str(wrapper)


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
