"""Sources, splits, decoding, views."""
