"""What an Install will do, decided before anything changes."""
