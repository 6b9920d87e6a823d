"""What a node says of an exception, as it is shown here."""

from __future__ import annotations

import pickle
from pathlib import Path

from afarm.payload import load_failure
from afarm.payload.failures import with_source


def test_lines_of_source_that_the_node_lacks_are_filled_in(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def f():\n    raise ValueError('here')\n")
    told = (
        "Traceback (most recent call last):\n"
        f'  File "{script}", line 2, in f\n'
        '  File "/node/lib/module.py", line 7, in g\n'
        "    g_line()\n"
        '  File "<stdin>", line 1, in h\n'
        "ValueError: here"
    )
    assert with_source(told).splitlines() == [
        "Traceback (most recent call last):",
        f'  File "{script}", line 2, in f',
        "    raise ValueError('here')",
        '  File "/node/lib/module.py", line 7, in g',
        "    g_line()",
        '  File "<stdin>", line 1, in h',
        "ValueError: here",
    ]


def test_a_text_that_is_no_traceback_is_left_as_it_is() -> None:
    for text in ("", "one line", "two\nlines"):
        assert with_source(text) == text


def test_an_exception_that_does_not_load_is_told_without_it() -> None:
    record = ("ValueError", "no", "trace", b"not a pickle", "")
    failure = load_failure([pickle.dumps(record)])
    assert failure.exception is None
    assert (failure.type_name, failure.message) == ("ValueError", "no")
