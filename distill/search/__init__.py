"""`distill tune`: which settings teach a student best on the validation images."""
