"""What a conversation is, who speaks in it, and how it becomes tokens with a loss mask."""
