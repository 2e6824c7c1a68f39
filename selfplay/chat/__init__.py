"""Conversations, their speakers, and chat templates that turn them into tokens with a loss mask."""
