"""The function monitor inside Dask: each task measured and limited, in a worker with threads."""

import afarm


@afarm.monitored(memory="300 MB", wall_time=60)
def table(rows: int) -> int:
    values = [list(range(100)) for _ in range(rows)]
    return sum(map(len, values))


def measured(rows: int) -> str:
    """Return how it went: Dask itself knows of its workers, not of what one task takes."""
    try:
        cells = table(rows)
    except afarm.ResourceExhausted as error:
        return f"{rows} rows: stopped for its {error.resource}"
    usage = table.last_usage
    assert usage is not None
    return f"{rows} rows: {cells} cells took {usage.memory // 1_000_000} MB"


if __name__ == "__main__":
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for told in client.gather(client.map(measured, [10_000, 100_000, 1_000_000])):
            print(told)
