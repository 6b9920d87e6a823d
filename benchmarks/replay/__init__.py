"""Calls whose needs were measured, run again through the real `FarmState` in simulated time."""
