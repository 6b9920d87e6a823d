"""Calls that wait for calls: results go from node to node, and here only the last arrives."""

import asyncio
import sys

import afarm


def count_words(text: str) -> dict[str, int]:
    """Return how often each word occurs."""
    from collections import Counter

    return dict(Counter(text.lower().split()))


def merge(counts: list[dict[str, int]]) -> dict[str, int]:
    """Return the sum of several counts."""
    total: dict[str, int] = {}
    for count in counts:
        for word, number in count.items():
            total[word] = total.get(word, 0) + number
    return total


LINES = ["the cat sat on the mat", "the dog sat too", "no cat saw the dog"]


async def main(nodes: list[str]) -> None:
    async with afarm.Farm(nodes or None) as farm:
        counts = [farm.submit(count_words, line) for line in LINES]
        total = await farm.submit(merge, counts)
        print(sorted(total.items(), key=lambda item: (-item[1], item[0]))[:3])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
