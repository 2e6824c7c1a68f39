"""Self-play between a user simulator and an assistant: generate, store, export and train on conversations."""
