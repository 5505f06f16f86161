"""What the teacher said, stored once."""
