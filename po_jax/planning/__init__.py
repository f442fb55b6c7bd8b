"""What a run will need on chips that are not here: memory, time, and what bounds it.

The programs of a run are compiled ahead of time for a described topology, and read. Nothing is
loaded and nothing runs.
"""
