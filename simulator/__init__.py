"""The user simulator: how conversations open, what the simulated user says, and when it ends them."""
