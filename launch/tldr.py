"""TL;DR, with a network: fetches Flan-T5 and the data, then trains and compares the methods.

    python -m launch.tldr [FOLDER] [--model=flan-t5-base] [--from=COPIES] [--gin.NAME=VALUE ...]

Says what it downloads and how much, downloads that once, and writes it as JSON Lines; then runs
gin/studies/tldr.gin. --from takes the files from a folder of copies instead, laid out as the hub
has them (trl-lib/tldr/data/..., google/flan-t5-small/...), and downloads nothing.
"""

import argparse
from collections.abc import Iterator, Sequence
import dataclasses
import json
from pathlib import Path
import sys
from typing import Any

from launch import command_line, gin_support, study
from launch.gin_files import ConfigError
from po_jax import files

MODELS = {"flan-t5-small": ("small", 308), "flan-t5-base": ("base", 990)}  # gin file, megabytes
MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors", "spiece.model")


@dataclasses.dataclass(frozen=True)
class Table:
    """A split of a data set of the hub.

    Attributes:
      repository: of the hub.
      file: in it, Parquet.
      megabytes: of the file.
      place: the JSON Lines that are made of it.
    """

    repository: str
    file: str
    megabytes: int
    place: str


TABLES = (
    Table("trl-lib/tldr", "data/train-00000-of-00001.parquet", 110, "posts/train.jsonl"),
    Table("trl-lib/tldr", "data/validation-00000-of-00001.parquet", 6, "posts/validation.jsonl"),
    Table("trl-lib/tldr", "data/test-00000-of-00001.parquet", 6, "posts/test.jsonl"),
    Table(
        "trl-lib/tldr-preference",
        "data/train-00000-of-00001.parquet",
        20,
        "comparisons/train.jsonl",
    ),
    Table(
        "trl-lib/tldr-preference",
        "data/validation-00000-of-00001.parquet",
        21,
        "comparisons/validation.jsonl",
    ),
)


def fetch(folder: Path, model: str, copies: Path | None) -> Path:
    """Brings the model and the data into a folder, what is there already excepted.

    Args:
      folder: downloads/ and data/ go there.
      model: one of `MODELS`.
      copies: files laid out as the hub has them; None to download.

    Returns:
      The model's directory.

    Raises:
      ConfigError: if a copy is not there, or the hub's library is not installed.
    """
    start = folder / "downloads" / model
    for name in MODEL_FILES:
        if not (start / name).exists():
            _bring(f"google/{model}", name, "model", start, copies)
    for table in TABLES:
        place = folder / "data" / table.place
        if place.exists():
            continue
        parquet = _bring(
            table.repository, table.file, "dataset", folder / "downloads" / table.repository, copies
        )
        with files.written_whole(place) as beside, beside.open("w") as file:
            for record in records(parquet):
                file.write(json.dumps(record) + "\n")
    return start


def records(parquet: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file that `tasks.jsonl` can read: those whose texts are not empty."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(parquet) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                if all(isinstance(text, str) and text.strip() for text in row.values()):
                    yield row


def _bring(repository: str, name: str, kind: str, folder: Path, copies: Path | None) -> Path:
    """A file of the hub, or its copy in the same place of a folder."""
    if copies is not None:
        copy = copies / repository / name
        if not copy.is_file():
            raise ConfigError(f"--from={copies}: expected the file {repository}/{name}, got none")
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(copy.read_bytes())
        return place
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ConfigError(f"expected the extra po_jax[tldr], got: {error}") from error
    return Path(hf_hub_download(repository, name, repo_type=kind, local_dir=folder))


def bill(model: str) -> str:
    """What is downloaded, and how much."""
    size = MODELS[model][1]
    lines = [f"google/{model}: {size} MB"]
    lines += [f"{table.repository}/{table.file}: {table.megabytes} MB" for table in TABLES]
    total = size + sum(table.megabytes for table in TABLES)
    return "\n".join([*lines, f"in all {total} MB, once"])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", default="runs/tldr", type=Path)
    parser.add_argument("--model", choices=MODELS, default="flan-t5-small")
    parser.add_argument("--from", dest="copies", type=Path, metavar="COPIES")
    arguments, bindings = parser.parse_known_args(argv)
    command_line.require_bindings(parser, bindings)
    if arguments.copies is None:
        print(f"Downloading, unless they are there:\n{bill(arguments.model)}", file=sys.stderr)

    def bring() -> None:
        fetch(arguments.folder, arguments.model, arguments.copies)

    if status := gin_support.exit_status(bring):
        return status
    return study.main(
        [
            "--gin_file=gin/studies/tldr.gin",
            f"--gin.STUDY_DIR={arguments.folder}",
            f"--gin.START={arguments.folder / 'downloads' / arguments.model}",
            f"--gin.DATA={arguments.folder / 'data'}",
            f"--gin.MODEL_FILE=gin/models/t5_1_1/{MODELS[arguments.model][0]}.gin",
            *bindings,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
