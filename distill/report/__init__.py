"""One HTML page, one JSON."""
