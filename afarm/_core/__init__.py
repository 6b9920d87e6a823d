"""Decisions: `FarmState.handle(event) -> list of actions`, and nothing that waits.

No clock, file, socket, thread or random number: time comes in with the events, so that
one object serves a live farm, a unit test and the replay of a trace.
"""
