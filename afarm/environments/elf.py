"""ELF files: what they need of a node, and telling them where else to look for it.

Written against the System V ABI (gABI 4.1, chapters 4 and 5) and its GNU extensions. Pure:
bytes in, bytes out. 64-bit files only; machines with others run no Python that is shipped.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_LOAD, _DYNAMIC, _NOTE = 1, 2, 4
_NULL, _NEEDED, _STRTAB, _STRSZ, _RPATH, _RUNPATH = 0, 1, 5, 10, 15, 29
_VERNEED, _VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
_READABLE = 4

# Bytes of an entry of the table of segments.
_HEADER = 56

# The largest page of any Linux (arm64, ppc64): a segment that begins on one can be mapped.
_PAGE = 1 << 16

_GLIBC = re.compile(r"GLIBC_(\d+)\.(\d+)")


class ElfError(Exception):
    """A file is no ELF file that can be read, or cannot be changed as asked."""


@dataclass(frozen=True, slots=True)
class _Segment:
    at: int  # of its header in the file
    kind: int
    offset: int
    address: int
    in_file: int
    in_memory: int


class Elf:
    """One file of machine code.

    Args:
        data: All of it.

    Raises:
        ElfError: If that is no 64-bit ELF file with a dynamic section.
    """

    def __init__(self, data: bytes) -> None:
        if data[:5] != b"\x7fELF\x02" or data[5:6] not in (b"\1", b"\2"):
            raise ElfError("no 64-bit ELF file")
        self._data = data
        self._order = "<" if data[5] == 1 else ">"
        try:
            self._segments = list(self._read_segments())
            [dynamic] = [each for each in self._segments if each.kind == _DYNAMIC]
            self._dynamic = dynamic.offset
            self._room = dynamic.in_file // 16
            self._entries = list(self._read_entries())
            self._strings = self._offset(self._value(_STRTAB))
            self._strings_size = self._value(_STRSZ)
        except (struct.error, ValueError, StopIteration) as exc:
            raise ElfError("no dynamically linked ELF file") from exc

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, self._data, at)

    def _read_segments(self) -> Iterator[_Segment]:
        (table,) = self._unpack("Q", 32)
        size, number = self._unpack("HH", 54)
        if size != _HEADER:
            raise ValueError(f"entries of {size} bytes")
        for at in range(table, table + size * number, size):
            kind, _, offset, address, _, in_file, in_memory = self._unpack("IIQQQQQ", at)
            yield _Segment(at, kind, offset, address, in_file, in_memory)

    def _read_entries(self) -> Iterator[tuple[int, int]]:
        for number in range(self._room):
            tag, value = self._unpack("qQ", self._dynamic + 16 * number)
            if tag == _NULL:
                return
            yield tag, value

    def _value(self, tag: int) -> int:
        return next(value for each, value in self._entries if each == tag)

    def _offset(self, address: int) -> int:
        for each in self._segments:
            if each.kind == _LOAD and each.address <= address < each.address + each.in_file:
                return address - each.address + each.offset
        raise ValueError(f"nothing is loaded at {address:#x}")

    def _string(self, at: int) -> str:
        begin = self._strings + at
        return self._data[begin : self._data.index(b"\0", begin)].decode("utf-8", "replace")

    @property
    def needed(self) -> list[str]:
        """The names of the libraries that are loaded with it."""
        return [self._string(value) for tag, value in self._entries if tag == _NEEDED]

    @property
    def runpath(self) -> str:
        """Where it tells the loader to look for them first; empty: nowhere."""
        for wanted in (_RUNPATH, _RPATH):
            for tag, value in self._entries:
                if tag == wanted:
                    return self._string(value)
        return ""

    @property
    def glibc(self) -> tuple[int, int]:
        """The newest version of the GNU C library of which it uses a symbol; (0, 0): none."""
        newest = (0, 0)
        tags = dict(self._entries)
        at = self._offset(tags[_VERNEED]) if _VERNEED in tags else 0
        for _ in range(tags.get(_VERNEEDNUM, 0)):
            _, count, _, auxiliary, following = self._unpack("HHIII", at)
            version = at + auxiliary
            for _ in range(count):
                _, _, _, name, next_version = self._unpack("IHHII", version)
                if found := _GLIBC.match(self._string(name)):
                    newest = max(newest, (int(found[1]), int(found[2])))
                version += next_version
            at += following
        return newest

    def with_runpath(self, runpath: str) -> bytes:
        """Return the file with another place to look for libraries first.

        The names that it refers to (``.dynstr``) are copied, with the new one behind them, into
        a segment of their own at the end; it takes the place of a note in the table of
        segments, which has no room for more.

        Raises:
            ElfError: If there is no note to give up, or no room for another entry.
        """
        data = bytearray(self._data)
        loads = [each for each in self._segments if each.kind == _LOAD]
        notes = [each for each in self._segments if each.kind == _NOTE]
        if not notes:
            raise ElfError("there is no room for another segment")
        strings = self._data[self._strings : self._strings + self._strings_size]
        content = strings + runpath.encode() + b"\0"
        offset = _round_up(len(data))
        address = _round_up(max(each.address + each.in_memory for each in loads))
        entries = [each for each in self._entries if each[0] not in (_RPATH, _RUNPATH)]
        changed = {_STRTAB: address, _STRSZ: len(content)}
        entries = [(tag, changed.get(tag, value)) for tag, value in entries]
        entries.append((_RUNPATH, len(strings)))
        if len(entries) >= self._room:
            raise ElfError("there is no room for another entry of its dynamic section")
        for number, entry in enumerate([*entries, (_NULL, 0)]):
            struct.pack_into(self._order + "qQ", data, self._dynamic + 16 * number, *entry)
        header = (_LOAD, _READABLE, offset, address, address, len(content), len(content), _PAGE)
        # Segments to load stand in the order of their addresses, and this one is the last.
        table, end = notes[-1].at, self._segments[-1].at + _HEADER
        data[table : end - _HEADER] = data[table + _HEADER : end]
        struct.pack_into(self._order + "IIQQQQQQ", data, end - _HEADER, *header)
        return bytes(data) + bytes(offset - len(data)) + content


def _round_up(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
