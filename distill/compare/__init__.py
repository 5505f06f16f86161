"""Finished runs side by side: scores on the images they share, what was set otherwise, how training went."""
