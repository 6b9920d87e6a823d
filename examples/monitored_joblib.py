"""The function monitor inside joblib: each task measured and limited, in joblib's own workers."""

import afarm


@afarm.monitored(memory="1 GiB", wall_time=60)
def table(rows: int) -> int:
    values = [list(range(100)) for _ in range(rows)]
    return sum(map(len, values))


def measured(rows: int) -> tuple[int, int]:
    """Return the result and the megabytes that it took."""
    cells = table(rows)
    usage = table.last_usage
    assert usage is not None
    return cells, usage.memory // 1_000_000


if __name__ == "__main__":
    from joblib import Parallel, delayed

    for cells, megabytes in Parallel(n_jobs=2)(delayed(measured)(n) for n in (10_000, 100_000)):
        print(f"{cells} cells took {megabytes} MB")
