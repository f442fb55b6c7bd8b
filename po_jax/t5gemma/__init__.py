"""The T5Gemma family in Flax linen: Gemma 2's parts in a T5's shape."""
