"""Devices: one file a place where exported files run."""
