"""What of an installed distribution does not travel, and why that is safe.

Only what is listed here stays behind: nothing is guessed from a folder's name. Each entry
is held against the installed distribution by a test, which reads all modules outside of the
folder for imports from it. Whatever imports from such a folder after all gets everything.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """What stays behind of one distribution.

    Attributes:
        folder: The name of folders, anywhere in it.
        reason: Why nothing else needs them.
    """

    folder: str
    reason: str


_TESTS = "no module outside of its tests imports them"

# By the canonical name of the distribution. Of scikit-learn's closure these are 29 of 270 MB.
RULES = {
    "joblib": Rule("test", _TESTS),
    "numpy": Rule("tests", _TESTS),
    "scikit-learn": Rule("tests", _TESTS),
    # Scripts in scipy.special._precompute do, which made the tables that scipy comes with; no
    # module imports those.
    "scipy": Rule("tests", "no module outside of its tests and of _precompute imports them"),
}


def rule_for(name: str, imports: Collection[str]) -> Rule | None:
    """Return what stays behind of a distribution.

    Args:
        name: Its canonical name.
        imports: All modules that are imported; if one is in such a folder, everything travels.
    """
    rule = RULES.get(name)
    if rule is None or any(rule.folder in module.split(".")[1:] for module in imports):
        return None
    return rule


def stays(rule: Rule | None, file: str) -> bool:
    """Return whether a file stays behind, by its name in the bundle."""
    return rule is not None and rule.folder in file.split("/")[2:-1]
