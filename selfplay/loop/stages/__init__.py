"""The stages of a loop, one file each."""
