"""Files of other tools: one module a format, each with `write` and `read`."""
