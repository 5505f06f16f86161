"""Students: one file a family."""
