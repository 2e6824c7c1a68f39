"""Recipes shipped with the package, as YAML files. `selfplay recipes` lists them."""
