"""Without asyncio: a farm as an executor of the standard library's kind."""

import sys
from concurrent.futures import as_completed

import afarm


def collatz(start: int) -> tuple[int, int]:
    """Return a number and how many steps it takes to reach 1."""
    steps, number = 0, start
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        steps += 1
    return start, steps


def main(nodes: list[str]) -> None:
    with afarm.Executor(nodes or None) as executor:
        futures = [executor.submit(collatz, start) for start in range(1, 200)]
        longest = max((future.result() for future in as_completed(futures)), key=lambda it: it[1])
        print("longest below 200: {} takes {} steps".format(*longest))


if __name__ == "__main__":
    main(sys.argv[1:])
