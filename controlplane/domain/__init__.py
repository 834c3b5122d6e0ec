"""The rules of deployments: values in, decisions out. No I/O, and no clock of its own."""
