"""What is in a set of images, before anything learns from it: `distill audit`."""
