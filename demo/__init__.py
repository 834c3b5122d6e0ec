"""The demonstration, and the stack of real processes on loopback that it shares with tests and benchmarks."""
