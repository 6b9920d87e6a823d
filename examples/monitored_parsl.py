"""The function monitor inside Parsl: each app measured and limited, on Parsl's threads."""

import afarm


def table(rows: int) -> int:
    values = [list(range(100)) for _ in range(rows)]
    return sum(map(len, values))


def measured(rows: int) -> str:
    """Return how it went: the calls of one process share a helper, and its threads stay theirs."""
    limits = afarm.Resources(memory=300_000_000, wall_time=60)
    try:
        cells, usage = afarm.monitor.run_sync(table, rows, limits=limits)
    except afarm.ResourceExhausted as error:
        return f"{rows} rows: stopped for its {error.resource}"
    return f"{rows} rows: {cells} cells took {usage.memory // 1_000_000} MB"


if __name__ == "__main__":
    import tempfile

    import parsl
    from parsl.config import Config
    from parsl.executors import ThreadPoolExecutor

    threads = ThreadPoolExecutor(max_threads=2)
    with (
        tempfile.TemporaryDirectory() as folder,
        parsl.load(Config(executors=[threads], run_dir=folder)),
    ):
        app = parsl.python_app(measured)
        for future in [app(rows) for rows in (10_000, 100_000, 1_000_000)]:
            print(future.result())
