"""The wrappers under the real T5X: what its loop, its evaluation and its inference ask for.

T5X is imported here and nowhere else. Tried with google-research/t5x at cc342d4.
"""
