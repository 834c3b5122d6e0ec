"""The words that all rooms of Install use."""
