"""Training methods: supervised fine-tuning with the loss on one role."""
