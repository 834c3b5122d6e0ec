"""The fault campaign: a real agent, harmed at random moments, must still tell the truth. `python -m chaos`."""
