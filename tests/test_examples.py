"""Every example runs as it stands, on this machine, and says what it should."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

EXPECTED = {
    "area.py": r"one call: 3\.1\d+\nmean of 20: 3\.14\d\n",
    "usage.py": r"1\d\d MB at its peak, \d\.\d\d s of CPU\nstopped for its memory\n",
    "chain.py": r"\[\('the', 4\), \('cat', 2\), \('dog', 2\)\]\n",
    "stream.py": r"2 3 5 7 11 13 17 19 \.\.\. 168 in all\n",
    "synchronous.py": r"longest below 200: 171 takes 124 steps\n",
}

TOLD = (
    r"10000 rows: 1000000 cells took \d\d MB\n"
    r"100000 rows: 10000000 cells took \d\d\d? MB\n"
    r"1000000 rows: stopped for its memory\n"
)
EXPECTED |= {
    "monitored_joblib.py": r"1000000 cells took \d\d MB\n10000000 cells took \d\d\d? MB\n",
    "monitored_dask.py": TOLD,
    "monitored_parsl.py": TOLD,
}

# What an example is for that has another system in it.
NEEDED = {
    "monitored_joblib.py": "joblib",
    "monitored_dask.py": "distributed",
    "monitored_parsl.py": "parsl",
}

pytestmark = [pytest.mark.slow, pytest.mark.integration]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_no_example_is_left_out() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_runs_as_it_stands(name: str) -> None:
    if name in NEEDED and importlib.util.find_spec(NEEDED[name]) is None:
        pytest.skip(f"{NEEDED[name]} is not installed here")
    done = run(f"examples/{name}")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(EXPECTED[name], done.stdout), done.stdout


def test_the_example_of_the_readme_gives_the_result_shown_there(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code, said = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", text, re.DOTALL)[0]
    # The README's hosts exist nowhere; this machine stands for them.
    local = re.sub(r"Farm\(\[.*?\]\)", "Farm()", code)
    assert local != code
    script = tmp_path / "readme.py"
    script.write_text(local, encoding="utf-8")
    done = run(str(script))
    assert done.returncode == 0, done.stderr
    assert done.stdout == said
