"""The self-play engine: a scheduler that decides, a runner that acts, events for whoever watches."""
