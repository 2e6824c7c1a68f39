"""Drivers that run the same conversations through other libraries, each in an environment of its own."""
