"""The `selfplay` command, one file a command group."""
