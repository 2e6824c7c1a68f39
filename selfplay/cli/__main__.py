"""`python -m selfplay.cli`."""

from selfplay.cli.main import main

main()
