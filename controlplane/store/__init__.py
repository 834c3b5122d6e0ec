"""The state of the endpoint: one SQLite database in the data directory."""
