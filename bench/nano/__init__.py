"""Score sheet of the embedded pair of models (the nano simulator and the nano assistant)."""
