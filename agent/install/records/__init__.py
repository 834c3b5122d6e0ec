"""What the group's files tell of its last Install."""
