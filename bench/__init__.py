"""Judgement: how human the simulator is, how good the assistant is; figures with sample sizes and intervals."""
