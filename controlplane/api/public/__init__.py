"""The operations of the public API, one module per noun."""
