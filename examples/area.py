"""The area of a circle by chance, many times: one call, then a stream of them.

python examples/area.py                    on this machine
python examples/area.py lab1 alice@lab2    on machines reached by SSH
"""

import asyncio
import sys

import afarm


def area(seed: int, points: int = 200_000) -> float:
    """Return an estimate of the area of a circle of radius 1."""
    import random

    chance = random.Random(seed)
    inside = sum(chance.random() ** 2 + chance.random() ** 2 < 1 for _ in range(points))
    return 4 * inside / points


async def main(nodes: list[str]) -> None:
    async with afarm.Farm(nodes or None) as farm:
        print("one call:", await farm.submit(area, 7))
        values = [value async for value in farm.map(area, range(20))]
        print(f"mean of {len(values)}: {sum(values) / len(values):.3f}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
