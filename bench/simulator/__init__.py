"""The scorecard of simulated users beside people."""
