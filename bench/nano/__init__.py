"""The score sheet of the embedded pair."""
