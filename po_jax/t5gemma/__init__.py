"""The T5Gemma families in Flax linen: Gemma 2's, and Gemma 3's, parts in a T5's shape."""
