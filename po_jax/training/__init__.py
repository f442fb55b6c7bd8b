"""Runs: where they start, what feeds them, the step, the loop, and evaluations on the way."""
