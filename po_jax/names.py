"""Names that were misspelt, and what may have been meant."""

from collections.abc import Iterable
import difflib


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: " Nearest: ...", or nothing."""
    near = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.5)
    return f" Nearest: {', '.join(near)}." if near else ""
