"""The run store: a folder with one SQLite file that survives being killed, and exports from it."""
