"""The environment variables of processes that run calls."""

from __future__ import annotations

from collections.abc import Mapping

# Variables that say how many threads or processes a library may start. Each is read when it
# is loaded; all calls of a template have as many cores.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "NUMEXPR_MAX_THREADS",  # above 8 (16 since 2.10) `NUMEXPR_NUM_THREADS` is refused without
    "LOKY_MAX_CPU_COUNT",  # what joblib, and so scikit-learn, makes of n_jobs=-1
)

# Variables of the agent's own start that no template is to inherit.
_SCRUBBED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONOPTIMIZE",
             "PYTHONSAFEPATH", "PYTHONUSERBASE", "PYTHONWARNINGS", "PYTHONUNBUFFERED",
             "__PYVENV_LAUNCHER__")  # fmt: skip


def variables_for(inherited: Mapping[str, str], threads: int, hash_seed: int) -> dict[str, str]:
    """Return the environment variables of a process whose calls may use so many threads."""
    made = {k: v for k, v in inherited.items() if k not in _SCRUBBED}
    made.update(dict.fromkeys(_THREADS, str(threads)))
    made["PYTHONHASHSEED"] = str(hash_seed)
    # glibc gives each thread an arena of 64 MB of addresses; two are enough for workers
    # that mostly run one thread, and what is freed shows in the measurement.
    made["MALLOC_ARENA_MAX"] = "2"
    made["MALLOC_TRIM_THRESHOLD_"] = str(1 << 20)
    return made
