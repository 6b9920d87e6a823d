"""The command line. Parses, calls the library, prints.

Exit status: 0 all well, 1 some call or node failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .commands import cache, check, deps, hosts
from .commands import map as mapping
from .errors import FarmError
from .resources import parse_bytes


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    try:
        stated = [*getattr(arguments, "node", []), *(getattr(arguments, "nodes", None) or [])]
        nodes = hosts.choose_nodes(stated, os.environ)
    except ValueError as exc:
        parser.error(str(exc))
    except OSError as exc:
        parser.error(f"cannot read the nodes in {exc.filename}: {exc.strerror}")
    try:
        status: int = arguments.run(arguments, nodes)
    except (mapping.UsageError, ValueError) as exc:
        parser.error(str(exc))
    except FarmError as exc:
        print(f"afarm: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough (`afarm map ... | head`). Standard output
        # goes nowhere from here on, so that the interpreter's last flush finds a place.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="afarm",
        description="Machines reached by SSH as one pool for Python functions.",
        epilog=f"Nodes: --nodes, else the variable {hosts.VARIABLE}, else this machine.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_check(commands)
    _add_cache(commands)
    _add_deps(commands)
    _add_map(commands)
    _add_top(commands)
    _add_report(commands)
    return parser


def _add_nodes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nodes",
        action="append",
        metavar="NODES",
        help="a file of nodes, or names: lab1,alice@lab2:2222,local (again for more)",
    )


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser("demo", help="run real functions on real input")
    _add_nodes(parser)
    parser.add_argument("--calls", type=_positive, metavar="N", help="how many calls to make")
    parser.add_argument("--quick", action="store_true", help="make each call a small one")
    parser.add_argument(
        "--record", metavar="FILE", help="keep a record; what it holds is not computed again"
    )
    parser.set_defaults(run=run_demo)


def _add_check(commands: Any) -> None:
    parser = commands.add_parser("check", help="find out whether nodes can be used, and how well")
    parser.add_argument("node", nargs="*", metavar="NODE", help="names, or a file of nodes")
    _add_nodes(parser)
    parser.set_defaults(run=run_check)


def _add_cache(commands: Any) -> None:
    parser = commands.add_parser(
        "cache",
        help="list what nodes have cached, or remove what is not in use",
        description="Bundles, environments and interpreters that farms left on nodes: their size,"
        " when they were used last, and whether some farm uses them now.",
    )
    parser.add_argument(
        "node",
        nargs="*",
        action=_ListOrClear,
        metavar="[list|clear] NODE",
        help="what to do (list), and names, or a file of nodes",
    )
    _add_nodes(parser)
    parser.set_defaults(run=run_cache, action="list")


class _ListOrClear(argparse.Action):
    """Nodes, with a word in front that says what to do there."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values and values[0] in ("list", "clear"):
            namespace.action, *values = values
        namespace.node = values


def _add_deps(commands: Any) -> None:
    parser = commands.add_parser(
        "deps",
        help="show what travels with a function, how large it is, and why",
        description="Print what a node that has nothing is sent. Nothing is sent or imported but"
        " the function's own module. The exit status is 1 if something it needs is not here.",
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION")
    parser.add_argument(
        "--packages", nargs="+", default=[], metavar="NAME", help="what else is to come along"
    )
    parser.add_argument("--files", action="store_true", help="list each file")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=run_deps, nodes=None)


def _add_map(commands: Any) -> None:
    parser = commands.add_parser(
        "map",
        help="call a function with each line of a file",
        description="Write one line of JSON for each input, in order: the result, or null where"
        " the call failed; then standard error says why and the exit status is 1.",
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION")
    parser.add_argument("inputs", metavar="INPUTS", help="a file, one input a line; - for stdin")
    _add_nodes(parser)
    parser.add_argument("--out", metavar="FILE", help="where the results go (standard output)")
    parser.add_argument(
        "--json", action="store_true", help="inputs are JSON (implied by .jsonl and .ndjson)"
    )
    parser.add_argument("--cores", type=float, metavar="N", help="cores that a call needs")
    parser.add_argument("--memory", type=_size, metavar="SIZE", help="memory, like '2 GiB'")
    parser.add_argument("--wall-time", type=float, metavar="S", help="seconds a call may take")
    parser.add_argument("--retries", type=int, metavar="N", help="tries after a lost node")
    parser.set_defaults(run=run_map)


def _add_top(commands: Any) -> None:
    parser = commands.add_parser("top", help="watch a farm that keeps a record")
    parser.add_argument("record", metavar="RECORD")
    parser.add_argument("--once", action="store_true", help="show how it stands, and end")
    parser.set_defaults(run=run_top)


def _add_report(commands: Any) -> None:
    parser = commands.add_parser("report", help="make a page of HTML from a record")
    parser.add_argument("record", metavar="RECORD")
    parser.add_argument(
        "--run", dest="which", type=_positive, metavar="N", help="default: the last"
    )
    parser.add_argument("--out", metavar="FILE", help="default: RECORD.html")
    parser.set_defaults(run=run_report)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def run_demo(arguments: argparse.Namespace, nodes: list[Any] | None) -> int:
    """``afarm demo``: exit status 1 if a call failed or its input is not installed."""
    from . import demo

    calls = arguments.calls or (demo.QUICK_CALLS if arguments.quick else demo.CALLS)
    try:
        done = asyncio.run(
            demo.run(nodes, calls=calls, quick=arguments.quick, record=arguments.record)
        )
    except demo.MissingInput as exc:
        print(f"afarm demo: {exc}", file=sys.stderr)
        return 1
    demo.report(done)
    return 1 if done.failures else 0


def run_check(arguments: argparse.Namespace, nodes: list[Any] | None) -> int:
    """``afarm check``: exit status 1 if a node cannot be used."""
    # What the library would log of a node stands in what is printed.
    logging.getLogger("afarm").setLevel(logging.ERROR)
    findings = asyncio.run(check.check(nodes))
    print(check.describe_findings(findings))
    return 1 if any(finding.problem for finding in findings) else 0


def run_cache(arguments: argparse.Namespace, nodes: list[Any] | None) -> int:
    """``afarm cache``: exit status 1 if a node's cache cannot be read."""
    contents = asyncio.run(cache.ask(nodes, arguments.action))
    print("\n".join(cache.describe(content, time.time()) for content in contents))
    return 1 if any(content.problem for content in contents) else 0


def run_deps(arguments: argparse.Namespace, nodes: list[Any] | None) -> int:
    """``afarm deps``: exit status 1 if something that the function needs is not here."""
    found = deps.find(mapping.load_function(arguments.function), arguments.packages)
    if arguments.json:
        print(json.dumps(deps.as_json(found), indent=2))
    else:
        print(deps.describe(arguments.function, found, each_file=arguments.files))
    return 1 if any(not each.optional for each in found.missing) else 0


def run_map(arguments: argparse.Namespace, nodes: list[Any] | None) -> int:
    """``afarm map``: exit status 1 if a call failed."""
    stated = {
        name: getattr(arguments, name) for name in ("cores", "memory", "wall_time", "retries")
    }
    failed = asyncio.run(
        mapping.run(
            mapping.load_function(arguments.function),
            arguments.inputs,
            nodes=nodes,
            out=arguments.out,
            as_json=arguments.json or arguments.inputs.endswith((".jsonl", ".ndjson")),
            options={name: value for name, value in stated.items() if value is not None},
            # Results on a terminal and a live display would be drawn over each other.
            progress=None if arguments.out or not sys.stdout.isatty() else False,
        )
    )
    return 1 if failed else 0


def run_top(arguments: argparse.Namespace, nodes: list[Any] | None) -> int:
    """``afarm top``: ends with the run that is watched."""
    from .commands import top

    top.watch(Path(arguments.record), once=arguments.once)
    return 0


def run_report(arguments: argparse.Namespace, nodes: list[Any] | None) -> int:
    """``afarm report``: says where the page is."""
    from . import report

    out = arguments.out or f"{arguments.record}.html"
    try:
        report.write(Path(arguments.record), out, run=arguments.which)
    except OSError as exc:
        print(f"afarm: cannot write {out}: {exc.strerror}", file=sys.stderr)
        return 1
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
