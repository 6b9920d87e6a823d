"""Items arrive while the function still runs: its progress, or results too many to hold."""

import asyncio
import sys
from collections.abc import Iterator

import afarm


def primes(below: int) -> Iterator[int]:
    """Yield the prime numbers below a limit."""
    found: list[int] = []
    for number in range(2, below):
        if all(number % prime for prime in found if prime * prime <= number):
            found.append(number)
            yield number


async def main(nodes: list[str]) -> None:
    async with afarm.Farm(nodes or None) as farm:
        count = 0
        async for prime in farm.stream(primes, 1000):
            count += 1
            if prime < 20:
                print(prime, end=" ")
        print(f"... {count} in all")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
