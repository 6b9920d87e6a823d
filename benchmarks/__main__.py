"""Runs the benchmarks: ``python -m benchmarks`` lists the questions.

Each subject of a question is measured in a process of its own, so that nobody measures
threads and memory that someone else left; the rounds interleave, so that a busy minute of
the machine falls on all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

from .figures import Figure, LeftOut, markdown_table, merge, text_table
from .machine import describe_machine, describe_versions
from .question import CannotMeasure, Question

QUESTIONS = (
    "overhead",
    "queue",
    "slow_link",
    "containment",
    "enforcement",
    "monitor_overhead",
    "cores",
    "sharing",
    "transfer",
    "startup",
    "dependencies",
    "import_storm",
    "monitor_accuracy",
    "record",
    "packing_replay",
    "packing_live",
    "sizing",
    "scale",
)
RESULTS = Path(__file__).parent / "results"
ROUNDS = 5
# Nothing measured here takes a minute when it works; some peers never answer.
TIMEOUT = 180.0
# Parts the figures from what a peer prints while it is measured.
MARK = "@figures "


def main(argv: Sequence[str] | None = None) -> int:
    """List the questions, or answer some; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", metavar="QUESTION")
    for name in QUESTIONS:
        question = load(name)
        command = commands.add_parser(name, help=first_line(question))
        _add_common(command)
        question.add_arguments(command)
        command.add_argument("--measure", metavar="SUBJECT", help=argparse.SUPPRESS)
    everything = commands.add_parser("all", help="all of them, one after the other")
    _add_common(everything)
    options, rest = parser.parse_known_args(argv)
    if options.name is None:
        print("\n".join(f"{name:<12} {first_line(load(name))}" for name in QUESTIONS))
        return 0
    if options.name == "all":
        given = list(argv if argv is not None else sys.argv[1:])[1:]
        return max(main([name, *given]) for name in QUESTIONS)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.measure:
        return _measure_here(options.name, options.measure, options)
    answer(options.name, options, list(argv if argv is not None else sys.argv[1:]))
    return 0


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument(
        "--only", "--peers", nargs="*", default=[], metavar="WORD", help="subjects with such a word"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")


def load(name: str) -> Question:
    """Return the module of a question."""
    return cast(Question, importlib.import_module(f"{__package__}.{name}"))


def first_line(question: Question) -> str:
    """Return the question itself."""
    return (question.__doc__ or "").strip().splitlines()[0]


def answer(name: str, options: argparse.Namespace, arguments: list[str]) -> list[Figure]:
    """Measure every subject of a question, print the table, write the JSON."""
    question = load(name)
    subjects = [
        subject
        for subject in question.subjects(options)
        if not options.only or any(word.lower() in subject.lower() for word in options.only)
    ]
    if not subjects:
        print(f"{name}: nothing is called {' or '.join(options.only)}")
        return []
    machine = describe_machine()
    measured: list[Figure] = []
    left_out: dict[str, LeftOut] = {}
    for number in range(options.rounds):
        for subject in subjects:
            if subject in left_out:
                continue
            _tell(f"{name}, round {number + 1} of {options.rounds}: {subject}")
            found = _measure_apart(subject, arguments)
            if isinstance(found, LeftOut):
                left_out[subject] = found
            else:
                measured += found
    _tell("")
    figures = merge(measured)
    _print_answer(question, figures, list(left_out.values()), options.markdown)
    _write(name, options.rounds, machine, figures, list(left_out.values()))
    _plot(name, question, figures)
    return figures


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _print_answer(
    question: Question, figures: Sequence[Figure], left_out: Sequence[LeftOut], markdown: bool
) -> None:
    print(f"\n{first_line(question)}\n")
    if figures:
        print(markdown_table(figures) if markdown else text_table(figures))
    for one in left_out:
        print(f"left out: {one.subject}: {one.reason}")
    for line in question.conclude(figures):
        print(line)
    sys.stdout.flush()


def _write(
    name: str,
    rounds: int,
    machine: dict[str, object],
    figures: Sequence[Figure],
    left_out: Sequence[LeftOut],
) -> None:
    RESULTS.mkdir(exist_ok=True)
    written = {
        "question": name,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rounds": rounds,
        "machine": machine,
        "versions": describe_versions(),
        "figures": [{**dataclasses.asdict(one), "median": one.median} for one in figures],
        "left_out": [dataclasses.asdict(one) for one in left_out],
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {os.path.relpath(path)}")


def _plot(name: str, question: Question, figures: Sequence[Figure]) -> None:
    plots: Callable[[Sequence[Figure]], dict[str, str]] | None = getattr(question, "plots", None)
    if plots is None or not figures:
        return
    for plot, svg in plots(figures).items():
        path = RESULTS / f"{name}-{plot}.svg"
        path.write_text(svg, encoding="utf-8")
        print(f"drawn in {os.path.relpath(path)}")


def _measure_apart(subject: str, arguments: list[str]) -> list[Figure] | LeftOut:
    """Measure one subject once in a process of its own."""
    argv = [sys.executable, "-m", __package__ or "benchmarks", *arguments, "--measure", subject]
    # Files and not pipes: what a peer leaves running would keep a pipe open. A folder for
    # what it leaves lying.
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        tempfile.TemporaryDirectory(prefix="afarm-bench-", ignore_cleanup_errors=True) as folder,
    ):
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, "TMPDIR": folder},
            start_new_session=True,
            cwd=Path(__file__).parent.parent,
        )
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            return LeftOut(subject, f"no answer within {TIMEOUT:.0f} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output, problem = _read(out), _read(err)
    for line in output.splitlines():
        if line.startswith(MARK):
            said = json.loads(line[len(MARK) :])
            if "reason" in said:
                return LeftOut(subject, said["reason"])
            return [Figure(**{**one, "values": tuple(one["values"])}) for one in said["figures"]]
    last = problem.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
    return LeftOut(subject, f"failed: {last[0][:200]}")


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _measure_here(name: str, subject: str, options: argparse.Namespace) -> int:
    """Measure one subject once in this process, and say the figures on standard output."""
    said: dict[str, object]
    try:
        said = {
            "figures": [dataclasses.asdict(one) for one in load(name).measure(subject, options)]
        }
    except CannotMeasure as exc:
        said = {"reason": str(exc)}
    print(f"\n{MARK}{json.dumps(said)}", flush=True)
    # Not every peer's threads let the interpreter end; what was measured is said.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
