"""Processes of a training run: launcher, worker, DeepSpeed's configuration and kernels."""
