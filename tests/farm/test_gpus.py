"""GPUs as a resource of a farm: each call sees its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

import afarm
from tests.farm import functions as do


@pytest.fixture
def two_gpus(nothing_left: None) -> afarm.Farm:
    return afarm.Farm([afarm.LocalNode(cores=8, gpus=2)], progress=False)


async def test_calls_at_once_never_share_a_gpu(
    two_gpus: afarm.Farm, isolation: str, tmp_path: Path
) -> None:
    async with two_gpus as farm:
        gpu = farm.options(gpus=1, isolation=isolation, cores=0.1)
        calls = [gpu.submit(do.use_gpus, str(tmp_path)) for _ in range(30)]
        both = [
            farm.options(gpus=2, isolation=isolation, cores=0.1).submit(do.use_gpus, str(tmp_path))
            for _ in range(3)
        ]
        without = [
            farm.options(isolation=isolation, cores=0.1).submit(do.use_gpus, str(tmp_path))
            for _ in range(5)
        ]
        seen = Counter(await asyncio.gather(*calls, *both, *without))
    assert set(seen) <= {"0", "1", "0,1", ""}
    assert seen["0"] + seen["1"] == 30
    assert min(seen["0"], seen["1"]) > 0
    assert (seen["0,1"], seen[""]) == (3, 5)


async def test_more_gpus_than_a_node_has_are_unschedulable(two_gpus: afarm.Farm) -> None:
    async with two_gpus as farm:
        [node] = farm.nodes
        assert node.capacity.gpus == 2
        with pytest.raises(afarm.Unschedulable, match="gpus"):
            await farm.options(gpus=3).submit(do.add, 1)


async def test_the_variable_of_the_users_own_counts(two_gpus: afarm.Farm) -> None:
    async with two_gpus as farm:
        view = farm.options(env={"CUDA_VISIBLE_DEVICES": "1"})
        assert await view.submit(do.visible_gpus) == "1"
