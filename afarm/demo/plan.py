"""Which calls the demonstration makes, and on what input.

The input is real and comes with the packages: 4,999 molecules that the National Cancer
Institute tested (RDKit), two photographs and 1,797 handwritten digits (scikit-learn).
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import work

CATEGORIES = ("descriptors", "conformers", "neighbours", "texture", "classify")
CALLS = 180
QUICK_CALLS = 100


@dataclass(frozen=True, slots=True)
class Call:
    """One call to make: a category, its function and the arguments."""

    category: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class MissingInput(Exception):
    """A package that ships the input is not installed."""


def make_plan(calls: int, *, quick: bool = False) -> list[Call]:
    """Return ``calls`` calls, the categories taking turns.

    Args:
        calls: How many.
        quick: Make each call smaller: seconds for all of them.

    Raises:
        MissingInput: If RDKit or scikit-learn is not installed here.
    """
    missing = [name for name in ("rdkit", "sklearn", "PIL") if not importlib.util.find_spec(name)]
    if missing:
        raise MissingInput(
            f"the demonstration needs {', '.join(missing)}: pip install 'afarm[demo]'"
        )
    smiles = read_molecules()
    scale = 4 if quick else 1
    # In ten calls: five, two, one, one and one of the categories.
    turns = [
        _descriptors(smiles, 50 // scale),
        _conformers(smiles, 12 // scale),
        _descriptors(smiles[2500:], 50 // scale),
        _neighbours(smiles, scale),
        _descriptors(smiles[1250:], 40 // scale),
        _texture(quick),
        _descriptors(smiles[3750:], 30 // scale),
        _conformers(smiles[2500:], 12 // scale),
        _descriptors(smiles[600:], 20 // scale),
        _classify(),
    ]
    made = (next(turn) for turn in itertools.cycle(turns))
    return list(itertools.islice(made, calls))


def read_molecules() -> list[str]:
    """Return the molecules that RDKit ships, as SMILES."""
    import rdkit

    file = Path(rdkit.__file__).parent / "Data" / "NCI" / "first_5K.smi"
    return [line.split()[0] for line in file.read_text().splitlines() if line.strip()]


def _batches(smiles: Sequence[str], size: int) -> Iterator[list[str]]:
    starts = itertools.cycle(range(0, len(smiles) - size + 1, size))
    return (list(smiles[start : start + size]) for start in starts)


def _descriptors(smiles: Sequence[str], size: int) -> Iterator[Call]:
    describe = work.make_describe()
    return (Call("descriptors", describe, (batch,)) for batch in _batches(smiles, size))


def _conformers(smiles: Sequence[str], size: int) -> Iterator[Call]:
    fold = work.make_fold()
    return (Call("conformers", fold, (batch,)) for batch in _batches(smiles, size))


def _neighbours(smiles: Sequence[str], scale: int) -> Iterator[Call]:
    neighbours = work.make_neighbours()
    # Mostly small sets and now and then all molecules: a giant in a category of dwarfs.
    sizes = itertools.cycle([500, 1000, 700, 1500, 900, len(smiles), 600, 2500])
    return (Call("neighbours", neighbours, (list(smiles[: size // scale]),)) for size in sizes)


def _texture(quick: bool) -> Iterator[Call]:
    from sklearn.datasets import load_sample_image

    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    sizes = (3, 4, 5) if quick else (4, 6, 8, 10, 12)
    texture = work.make_texture()
    pairs = itertools.cycle(itertools.product(sizes, photographs))
    return (Call("texture", texture, (photograph, size)) for size, photograph in pairs)


def _classify() -> Iterator[Call]:
    classify = work.make_classify()
    pairs = itertools.cycle(itertools.product((0.1, 1.0, 10.0, 100.0), (1e-4, 3e-4, 1e-3, 1e-2)))
    return (Call("classify", classify, pair) for pair in pairs)
