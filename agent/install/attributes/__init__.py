"""Which owner, mode, ACL and label files and directories are to have."""
