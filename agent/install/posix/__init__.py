"""What the system can do: places, renames, access control lists, disks."""
