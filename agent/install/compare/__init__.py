"""What is on the host already, beside what is to be there."""
