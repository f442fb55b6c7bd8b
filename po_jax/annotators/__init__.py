"""Annotators: who says P(y1 > y2 | x). Trained T5s on the device, or any Python callable."""
