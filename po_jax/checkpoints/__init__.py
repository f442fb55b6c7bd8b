"""Checkpoints: T5X's and Hugging Face's in and out, po_jax's own."""
