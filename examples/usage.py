"""What did a call use? Every invocation is measured; a limit that is stated is kept."""

import asyncio
import sys

import afarm


def fill(megabytes: int) -> int:
    """Take that much memory, touch all of it, and return how much it was in bytes."""
    return len(b"x" * (megabytes * 1_000_000))


async def main(nodes: list[str]) -> None:
    async with afarm.Farm(nodes or None) as farm:
        call = farm.submit(fill, 100)
        await call
        assert call.usage is not None
        print(f"{call.usage.memory / 1e6:.0f} MB at its peak, {call.usage.cpu_time:.2f} s of CPU")

        try:
            await farm.options(memory="200 MB").submit(fill, 800)
        except afarm.ResourceExhausted as stopped:
            print(f"stopped for its {stopped.resource}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
