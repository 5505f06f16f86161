"""Checks of what a training starts from: training with a bug fails silently, so each classic bug has a check."""
