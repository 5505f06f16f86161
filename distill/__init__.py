"""mobile-distill: a big vision model teaches a small one that fits a phone."""

__version__ = "0.1.0"
