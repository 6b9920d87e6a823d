"""Measuring and limiting one call's process tree. Streamed; standard library only."""
