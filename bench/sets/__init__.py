"""Descriptions of question sets, as package data: where the files are and how they are judged, never the questions."""
