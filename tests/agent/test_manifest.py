"""The list of what a bundle holds."""

from __future__ import annotations

import hashlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afarm._agent import manifest

# Names as file systems have them, bytes that are no text included; a bundle has none with a
# line break.
NAMES = st.binary(min_size=1, max_size=40).map(
    lambda name: os.fsdecode(name.replace(b"\n", b".").replace(b"\0", b"."))
)
FILES = st.dictionaries(NAMES, st.tuples(st.binary(max_size=4), st.booleans()), max_size=8)


def lines(files: dict[str, tuple[bytes, bool]]) -> list[str]:
    return [
        manifest.line(name, hashlib.sha256(data).hexdigest(), executable=executable)
        for name, (data, executable) in files.items()
    ]


@settings(deadline=None)
@given(FILES)
def test_what_is_written_is_read_in_its_order(files: dict[str, tuple[bytes, bool]]) -> None:
    found = manifest.read(manifest.text("any", lines(files)))

    assert list(found) == list(files)
    assert all(found[name] == hashlib.sha256(data).hexdigest() for name, (data, _) in files.items())


@settings(deadline=None)
@given(FILES, st.randoms(), st.binary())
def test_the_digest_depends_on_content_alone(
    files: dict[str, tuple[bytes, bool]], random: object, bytecode: bytes
) -> None:
    listed = lines(files)
    digest = manifest.digest_of(manifest.text("any", listed))
    shuffled = [*listed, *lines({"a/__pycache__/b.cpython-311.pyc": (bytecode, False)})]
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert manifest.digest_of(manifest.text("any", shuffled)) == digest
    assert manifest.digest_of(manifest.text("other", listed)) != digest
    changed = [*listed, *lines({"one/more": (b"", False)})]
    assert manifest.digest_of(manifest.text("any", changed)) != digest


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(manifest.ManifestError):
        manifest.read(data)
    with pytest.raises(manifest.ManifestError):
        manifest.read(b"afarm-bundle 2 any\n" + data + b"#\n")
