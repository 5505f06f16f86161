"""Tasks what right means."""
