"""What the property tests draw from: requests, capacities, usages and endings."""

from __future__ import annotations

from hypothesis import strategies as st

from afarm._core.request import Request
from afarm.resources import Resources, Usage

MIB = 1 << 20
GIB = 1 << 30

NODE_NAMES = ("a", "b", "c")

capacities = st.builds(
    Resources,
    cores=st.sampled_from([0.5, 1, 2, 4]),
    memory=st.sampled_from([512 * MIB, 2 * GIB, 8 * GIB]),
    disk=st.sampled_from([None, 10 * GIB]),
    gpus=st.sampled_from([0, 0, 2]),
)

stated = st.builds(
    Resources,
    cores=st.sampled_from([None, None, None, None, 0.3, 1, 1, 2, 4, 64]),
    memory=st.sampled_from([None, None, None, 0, 100 * MIB, GIB, 6 * GIB]),
    disk=st.sampled_from([None, None, None, GIB]),
    gpus=st.sampled_from([None, None, None, None, 1]),
)

requests = st.builds(
    Request,
    category=st.sampled_from(["resize", "train", "parse"]),
    stated=stated,
    features=st.sampled_from([{}, {}, {"n": 1.0}, {"n": 30.0}, {"n": 30.0, "m": 2.0}, {"m": 50.0}]),
    environment=st.integers(1, 2),
    isolation=st.sampled_from(["fork", "reuse", "auto"]),
    retries=st.sampled_from([3, 3, 1, 0]),
    priority=st.sampled_from([0.0, 0.0, 0.0, 1.0]),
    node=st.sampled_from([None] * 12 + ["a", "a", "nowhere"]),
)

# Mostly short, so that calls are sent ahead.
usages = st.builds(
    Usage,
    wall_time=st.sampled_from([0.0, 0.0005, 0.001, 0.01, 0.03, 5.0]),
    memory=st.sampled_from([0, 20 * MIB, 300 * MIB, 3 * GIB]),
)

endings = st.sampled_from(
    ["finish"] * 4 + ["large"] * 2 + ["fail", "retry", "exhaust", "exhaust", "kill"]
)
exhausted = st.sampled_from(["memory", "memory", "memory", "cores", "disk", "wall_time"])

seconds = st.sampled_from([0.0, 0.01, 0.3, 5.0, 11.0, 100.0])
