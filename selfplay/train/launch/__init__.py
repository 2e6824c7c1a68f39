"""Launching of training processes: launcher, worker, environment checks, DeepSpeed configuration and kernels."""
