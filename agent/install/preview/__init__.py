"""What an Install would do, told without doing any of it."""
