"""Scorecard of user simulators: simulated users beside people, metric by metric."""
