"""The control endpoint: serves the host command protocol and the public deployment API on one port."""
