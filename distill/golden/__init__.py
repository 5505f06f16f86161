"""Other test sets, and other people's predictions: `distill eval` and `distill score`."""
