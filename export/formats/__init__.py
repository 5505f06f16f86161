"""Formats: one file a kind of exported file."""
