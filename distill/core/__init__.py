"""The vocabulary. Nothing in here imports torch."""
