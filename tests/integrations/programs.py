"""Programs of other systems, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run_program(folder: Path, text: str) -> str:
    """Run a program in a folder; return what it prints, and fail if it does."""
    program = folder / "program.py"
    program.write_text(text)
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
