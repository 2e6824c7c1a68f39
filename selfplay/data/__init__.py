"""Human conversations: where datasets are found, how their rows are read, what is kept."""
