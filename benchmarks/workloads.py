"""Real functions over real input for the experiment on packing, with needs as unlike as real ones.

Four kinds, as in the paper's evaluation: columnar analysis of collider events, screening of
molecules, comparison of protein sequences, classification of images. Molecules, proteins,
photographs and digits are real and come with RDKit, pyhmmer and scikit-learn; no package ships
collider events, so these are drawn with a fixed seed. Each function is made by another one and
imports what it uses, so that it travels by value.
"""

from __future__ import annotations

import importlib.util
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afarm.demo.plan import read_molecules
from afarm.demo.work import make_neighbours, make_texture

NEEDED = ("numpy", "rdkit", "sklearn", "pyhmmer")


@dataclass(frozen=True, slots=True)
class Work:
    """One call to make."""

    category: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def missing() -> list[str]:
    """Return the modules that ship the input and are not here."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def plan(number: int, seed: int = 1) -> list[Work]:
    """Return so many calls, the kinds taking turns, sizes drawn with a fixed seed."""
    kinds = itertools.cycle(
        (_events(seed), _molecules(seed), _proteins(seed), _images(seed), _events(seed + 1))
    )
    return [next(kind) for kind in itertools.islice(kinds, number)]


def _sizes(seed: int, least: int, most: int) -> Iterator[int]:
    """Yield sizes as analyses have them: many small ones, few that are much larger."""
    draw = random.Random(seed)
    while True:
        yield min(most, int(least * draw.paretovariate(1.1)))


# --- columnar event analysis


def make_dimuons() -> Callable[[int, int], list[int]]:
    """Return the function of category ``events``."""

    def dimuons(seed: int, events: int) -> list[int]:
        """Return the spectrum of the invariant mass of pairs of opposite charge, in GeV."""
        import numpy as np

        draw = np.random.default_rng(seed)
        muons = draw.poisson(1.6, events)
        first = np.concatenate(([0], np.cumsum(muons)[:-1]))
        total = int(muons.sum())
        pt = draw.exponential(25.0, total) + 3
        eta = draw.normal(0, 1.3, total)
        phi = draw.uniform(-np.pi, np.pi, total)
        charge = draw.integers(0, 2, total) * 2 - 1
        spectrum = np.zeros(120, int)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            at = first[muons > other]
            a, b = at + one, at + other
            opposite = charge[a] != charge[b]
            a, b = a[opposite], b[opposite]
            mass = np.sqrt(2 * pt[a] * pt[b] * (np.cosh(eta[a] - eta[b]) - np.cos(phi[a] - phi[b])))
            spectrum += np.histogram(mass, 120, (0, 120))[0]
        return [int(count) for count in spectrum]

    return dimuons


def _events(seed: int) -> Iterator[Work]:
    function = make_dimuons()
    for number, size in enumerate(_sizes(seed, 400_000, 5_000_000)):
        yield Work("events", function, (seed * 1000 + number, size))


# --- molecule screening


def _molecules(seed: int) -> Iterator[Work]:
    smiles = read_molecules()
    function = make_neighbours()
    for size in _sizes(seed + 10, 900, 4_500):
        yield Work("molecules", function, (smiles[:size],))


# --- sequence analysis


def make_relatives() -> Callable[[Sequence[str]], float]:
    """Return the function of category ``sequences``."""

    def relatives(proteins: Sequence[str]) -> float:
        """Return the mean similarity of each protein to its nearest: cosine of 3-mer counts."""
        import numpy as np

        letters = np.full(256, 20, np.int64)
        letters[np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8)] = np.arange(20)
        counts = np.zeros((len(proteins), 21**3), np.float32)
        for row, protein in zip(counts, proteins, strict=True):
            codes = letters[np.frombuffer(protein.encode(), np.uint8)]
            words = codes[:-2] * 441 + codes[1:-1] * 21 + codes[2:]
            row += np.bincount(words, minlength=21**3)
        counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-6)
        likeness = counts @ counts.T
        np.fill_diagonal(likeness, 0)
        return float(likeness.max(axis=1).mean())

    return relatives


def read_proteins() -> list[str]:
    """Return the 2,100 proteins of a genome that pyhmmer ships."""
    import pyhmmer

    folder = Path(pyhmmer.__file__).parent / "tests" / "data" / "seqs"
    text = (folder / "938293.PRJEB85.HG003687.faa").read_text()
    return ["".join(entry.splitlines()[1:]).strip("*") for entry in text.split(">")[1:]]


def _proteins(seed: int) -> Iterator[Work]:
    proteins = [protein for protein in read_proteins() if len(protein) >= 3]
    function = make_relatives()
    for size in _sizes(seed + 20, 700, len(proteins) * 3):
        # More than one genome's worth: the same proteins, each shifted by a few letters.
        shifts = range(-(-size // len(proteins)))
        many = [protein[shift:] for shift in shifts for protein in proteins]
        yield Work("sequences", function, ([one for one in many[:size] if len(one) >= 3],))


# --- image classification


def make_recognise() -> Callable[[int], float]:
    """Return the function of category ``images``."""

    def recognise(shifts: int) -> float:
        """Return how well a small network, trained on shifted copies, tells digits apart."""
        import numpy as np
        from sklearn.datasets import load_digits
        from sklearn.neural_network import MLPClassifier

        images, digits = load_digits(return_X_y=True)
        held = images.shape[0] // 5
        pictures = images[held:].reshape(-1, 8, 8)
        copies = [np.roll(pictures, (n % 3 - 1, n // 3 % 3 - 1), (1, 2)) for n in range(shifts)]
        training = np.concatenate(copies).reshape(-1, 64) / 16
        network = MLPClassifier((32,), max_iter=4, batch_size=500, random_state=1, tol=0)
        with np.errstate(all="ignore"):
            network.fit(training, np.tile(digits[held:], shifts))
        return float(network.score(images[:held] / 16, digits[:held]))

    return recognise


def _images(seed: int) -> Iterator[Work]:
    from sklearn.datasets import load_sample_image

    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    recognise, texture = make_recognise(), make_texture()
    for number, size in enumerate(_sizes(seed + 30, 5, 40)):
        if number % 2:
            yield Work("images", recognise, (size,))
        else:
            yield Work("textures", texture, (photographs[number // 2 % 2], min(12, 3 + size // 4)))
