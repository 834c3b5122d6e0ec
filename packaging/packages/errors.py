"""Why no packages were built."""


class BuildFailed(Exception):
    """The message says what is missing, and how to get it."""
