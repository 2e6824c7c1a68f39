"""The assistant: its settings, its model, how it samples answers, and how it is trained."""
