"""What callers see: the two wire protocols, the public operations and the host commands."""
