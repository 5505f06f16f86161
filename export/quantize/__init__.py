"""Quantization: calibration and recipes."""
