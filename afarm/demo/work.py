"""The functions that the demonstration runs, with needs as unlike as real ones.

Each is made by another function, and imports what it uses itself. So it travels by
value, like a function written in a script or a notebook, and a node that runs it has no
use for this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

# A photograph as scikit-learn ships it: rows x columns x (red, green, blue), uint8.
Photograph = Any


def make_describe() -> Callable[[Sequence[str]], list[dict[str, float]]]:
    """Return the function of category ``descriptors``: short, next to no memory."""

    def describe(smiles: Sequence[str]) -> list[dict[str, float]]:
        """Return the 200-odd RDKit descriptors of each molecule that can be read."""
        from rdkit import Chem, RDLogger
        from rdkit.Chem import Descriptors

        RDLogger.DisableLog("rdApp.*")
        molecules = [Chem.MolFromSmiles(line) for line in smiles]
        return [Descriptors.CalcMolDescriptors(found) for found in molecules if found]

    return describe


def make_fold() -> Callable[[Sequence[str]], list[float | None]]:
    """Return the function of category ``conformers``: long, pure computing."""

    def fold(smiles: Sequence[str]) -> list[float | None]:
        """Return the least MMFF energy (kcal/mol) of three conformers of each molecule."""
        from rdkit import Chem, RDLogger
        from rdkit.Chem import AllChem

        RDLogger.DisableLog("rdApp.*")
        energies: list[float | None] = []
        for line in smiles:
            molecule = Chem.AddHs(Chem.MolFromSmiles(line) or Chem.Mol())
            known = molecule.GetNumAtoms() and AllChem.MMFFHasAllMoleculeParams(molecule)
            # Neither the field nor the embedding knows every molecule; salts are common here.
            if known and AllChem.EmbedMultipleConfs(molecule, 3, randomSeed=7, maxAttempts=5):
                found = AllChem.MMFFOptimizeMoleculeConfs(molecule)
                energies.append(min(energy for _, energy in found))
            else:
                energies.append(None)
        return energies

    return fold


def make_neighbours() -> Callable[[Sequence[str]], float]:
    """Return the function of category ``neighbours``: memory with the square of its input."""

    def neighbours(smiles: Sequence[str]) -> float:
        """Return the mean Tanimoto similarity of each molecule to its nearest neighbour."""
        import numpy as np
        from rdkit import Chem, RDLogger
        from rdkit.Chem import rdFingerprintGenerator

        RDLogger.DisableLog("rdApp.*")
        generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
        molecules = [Chem.MolFromSmiles(line) for line in smiles]
        prints = np.array(
            [generator.GetFingerprintAsNumPy(found) for found in molecules if found],
            dtype=np.float32,
        )
        common = prints @ prints.T
        bits = prints.sum(axis=1)
        similarity = common / (bits[:, None] + bits[None, :] - common)
        np.fill_diagonal(similarity, 0)
        return float(similarity.max(axis=1).mean())

    return neighbours


def make_texture() -> Callable[[Photograph, int], list[float]]:
    """Return the function of category ``texture``: hundreds of megabytes for a second."""

    def texture(photograph: Photograph, size: int) -> list[float]:
        """Return how much of all patches of ``size`` x ``size`` eight components explain."""
        from sklearn.decomposition import PCA
        from sklearn.feature_extraction.image import extract_patches_2d

        grey = photograph.mean(axis=2) / 255
        patches = extract_patches_2d(grey, (size, size)).reshape(-1, size * size)
        explained = PCA(8, svd_solver="covariance_eigh").fit(patches).explained_variance_ratio_
        return [float(share) for share in explained]

    return texture


def make_classify() -> Callable[[float, float], float]:
    """Return the function of category ``classify``: short, reads what scikit-learn ships."""

    def classify(c: float, gamma: float) -> float:
        """Return the cross-validated accuracy of a support vector machine on digits."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import cross_val_score
        from sklearn.svm import SVC

        images, digits = load_digits(return_X_y=True)
        return float(cross_val_score(SVC(C=c, gamma=gamma), images, digits, cv=3).mean())

    return classify
