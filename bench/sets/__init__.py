"""Question sets, shipped as package data: where their files are found and how they are judged, not their questions."""
