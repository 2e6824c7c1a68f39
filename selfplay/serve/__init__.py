"""Engines that answer token ids with token ids: vLLM in its own process, and a scripted one for tests."""
