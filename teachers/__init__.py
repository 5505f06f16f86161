"""Teachers: one file a kind; ready configs in `recipes/`."""
