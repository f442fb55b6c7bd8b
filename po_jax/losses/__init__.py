"""Losses as pure functions: `[batch]` in, `[batch]` out; the model wrappers take the mean."""
