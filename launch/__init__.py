"""Command-line entry points: the only Python of the project that imports gin."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

#: Folder of the gin files: inside this package in an installed wheel, beside it in a checkout.
GIN_FOLDER = _HERE / "gin" if (_HERE / "gin").is_dir() else _HERE.parent / "gin"
