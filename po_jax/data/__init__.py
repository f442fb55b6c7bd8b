"""Data sets in memory, the order in which they are read, and the arrays of a batch."""
