"""Curation: which conversations are fit to be learned from."""
