"""A phone behind `adb`: asked what it is, given files, made to run them, left as it was found."""
