"""The embedded data set: docstrings of the installed packages that po_jax itself depends on.

Files are parsed with `ast`; nothing is imported. Order, split and text depend only on the files
found: the same packages give the same pairs. Whole modules go to one split, and what is held out
is dropped where it mostly repeats training text (a vendored or versioned copy). More packages may
widen the training split; they leave what is held out as it is, and give nothing that repeats it.

    python -m tasks.docstring_pairs FOLDER      # extract, write to FOLDER, print the sizes
"""

import argparse
import ast
import collections
from collections.abc import Iterable, Iterator, Sequence
import concurrent.futures
import dataclasses
import gc
import hashlib
from importlib.machinery import PathFinder
import itertools
import json
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys

from tasks import docstring_signature, docstring_text

# What setup.py requires, and what that requires; not the optional extras, so that the data is the
# same with and without them.
PACKAGES = tuple(
    """
    absl attr click clu contourpy dateutil docstring_parser etils flax fontTools gin grpc h5py
    humanize jax jaxlib jaxtyping joblib keras matplotlib ml_collections nltk numpy opt_einsum
    optax optree orbax packaging PIL prometheus_client psutil pyarrow pyglove pygments pyparsing
    requests rich scipy seqio simple_parsing simplejson tensorflow tensorflow_datasets
    tensorflow_metadata tensorflow_text tensorstore tqdm tree treescope urllib3 wrapt yaml
    """.split()
)

SPLITS = ("train", "validation", "test")
HELD_OUT_SHARE = 0.05  # of the modules, for each of validation and test
SHINGLE_WORDS = 8
MAX_REPEATED_SHARE = 0.5  # of a held-out body's shingles, or of its summary's words

# Three words behind quotation marks: a file without them needs no parsing.
_CANDIDATE = re.compile(rb"""(?:\"{3}|'{3})\s*[A-Za-z]\S*\s+\S+\s+\S""")
_SKIPPED_FOLDERS = {"tests", "test", "testing", "_vendor", "third_party", "_api", "include"}


@dataclasses.dataclass(frozen=True)
class Pair:
    """One docstring: what stands above it, its body, which may be empty, and its first line."""

    module: str
    name: str
    heading: str
    body: str
    summary: str

    @property
    def document(self) -> str:
        """What a person who writes the summary sees."""
        return f"{self.heading}\n{self.body}" if self.body else self.heading


def split_of(module: str) -> str:
    """The split that a module belongs to: a stable hash of its dotted name decides."""
    digest = hashlib.sha256(module.encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < HELD_OUT_SHARE:
        return "validation"
    return "test" if position < 2 * HELD_OUT_SHARE else "train"


def load(
    folder: str | os.PathLike, packages: Sequence[str] = PACKAGES, more: Sequence[str] = ()
) -> dict[str, list[Pair]]:
    """The pairs of every split, from the cache in `folder` if these very files were read before.

    Args:
      folder: of the cache.
      packages: give pairs to every split.
      more: packages that widen the training split.
    """
    cached = _cache_file(folder, source_files(packages), source_files(more))
    if not cached.exists():
        _extract_in_new_process(folder, packages, more)
    splits = {split: [] for split in SPLITS}
    for line in cached.read_text().splitlines():
        pair = Pair(**json.loads(line))
        splits[split_of(pair.module)].append(pair)
    return splits


def source_files(packages: Sequence[str]) -> dict[str, pathlib.Path]:
    """Dotted module name -> file, of all modules of the packages that are installed, sorted."""
    found = {}
    for package in packages:
        spec = PathFinder.find_spec(package)  # unlike importlib.util's, blind to what is imported
        for root in (spec and spec.submodule_search_locations) or ():
            for path in pathlib.Path(root).rglob("*.py"):
                parts = path.relative_to(root).with_suffix("").parts
                is_test = parts[-1].startswith("test_") or parts[-1].endswith("_test")
                if not is_test and _SKIPPED_FOLDERS.isdisjoint(parts):
                    found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return dict(sorted(found.items()))


def extract(files: dict[str, pathlib.Path], more: dict[str, pathlib.Path]) -> dict[str, list[Pair]]:
    """All pairs of the files by split, deduplicated, in the order of the module names.

    It forks: call it where no thread runs (`load` does, in a new process).

    Args:
      files: as `source_files` found them.
      more: those that widen the training split.
    """
    wider = {module: path for module, path in more.items() if split_of(module) == "train"}
    splits = {split: [] for split in SPLITS}
    for pair in _distinct(_pairs_of_files({**files, **wider})):
        splits[split_of(pair.module)].append(pair)
    own = [pair for pair in splits["train"] if pair.module in files]
    known = _Known(own)
    for split in SPLITS[1:]:
        splits[split] = [pair for pair in splits[split] if not known.repeated_by(pair)]
    held_out = _Known([*splits["validation"], *splits["test"]])
    added = [pair for pair in splits["train"] if pair.module not in files]
    splits["train"] = [*own, *(pair for pair in added if not held_out.repeated_by(pair))]
    return splits


def _pairs_of_files(files: dict[str, pathlib.Path]) -> Iterator[Pair]:
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(mp_context=context) as pool:
        for pairs in pool.map(pairs_of_file, files.keys(), files.values(), chunksize=64):
            yield from pairs


def pairs_of_file(module: str, path: pathlib.Path) -> list[Pair]:
    """The pairs in one source file, in the order of its text; none where it does not parse."""
    source = path.read_bytes()
    if not _CANDIDATE.search(source):
        return []
    gc.disable()  # the tree is large and free of cycles: collecting only doubles the time
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    finally:
        gc.enable()
    pairs = []
    for inner, node in _documented(tree, ""):
        if pair := docstring_text.pair(ast.get_docstring(node, clean=False)):
            heading = docstring_signature.heading(node, module, inner)
            pairs.append(Pair(module, f"{module}.{inner}".rstrip("."), heading, *pair))
    return pairs


def _documented(
    node: docstring_signature.Definition, name: str
) -> Iterator[tuple[str, docstring_signature.Definition]]:
    """A module, class or function, and all defined in it, that have a docstring; with the dotted
    name inside the module."""
    if ast.get_docstring(node, clean=False):
        yield name, node
    for child in _definitions(node.body):
        yield from _documented(child, f"{name}.{child.name}".lstrip("."))


def _definitions(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Classes and functions of a block, also those under its `if`, `try` and `with`."""
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _definitions(statement.body)
            yield from _definitions(getattr(statement, "orelse", ()))


def _distinct(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Drops pairs whose summary, whose name with its signature, or whose body's start was seen."""
    seen = set()
    for pair in pairs:
        signature = pair.heading.rpartition("\n")[2].partition(".")[2]
        keys = {" ".join(_words(pair.summary)), signature}
        if len(start := _words(pair.body)[:20]) >= SHINGLE_WORDS:
            keys.add(" ".join(start))
        if seen.isdisjoint(keys):
            yield pair
        seen |= keys


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _shingles(text: str) -> set[int]:
    words = _words(text)
    return {
        hash(tuple(words[i : i + SHINGLE_WORDS])) for i in range(len(words) - SHINGLE_WORDS + 1)
    }


class _Known:
    """Which pairs mostly repeat the given ones."""

    def __init__(self, pairs: Sequence[Pair]):
        self._shingles = {shingle for pair in pairs for shingle in _shingles(pair.body)}
        self._summaries = collections.defaultdict(list)
        for pair in pairs:
            self._summaries[_last(pair.name)].append(set(_words(pair.summary)))

    def repeated_by(self, pair: Pair) -> bool:
        """Whether its body's words are known, or its summary's, of something of the same name."""
        shingles, words = _shingles(pair.body), set(_words(pair.summary))
        if len(shingles & self._shingles) > MAX_REPEATED_SHARE * len(shingles):
            return True
        return any(
            len(words & known) > MAX_REPEATED_SHARE * len(words | known)
            for known in self._summaries[_last(pair.name)]
        )


def _last(name: str) -> str:
    return name.rpartition(".")[2].strip("_").lower()


def _fingerprint(files: dict[str, pathlib.Path], more: dict[str, pathlib.Path]) -> str:
    """Changes with the files found, their sizes, and the rules that read them."""
    digest = hashlib.sha256()
    for rules in (__file__, docstring_signature.__file__, docstring_text.__file__):
        digest.update(pathlib.Path(rules).read_bytes())
    for found in (files, more):
        for module, path in found.items():
            digest.update(f"{module} {path.stat().st_size}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def _cache_file(
    folder: str | os.PathLike, files: dict[str, pathlib.Path], more: dict[str, pathlib.Path]
) -> pathlib.Path:
    return pathlib.Path(folder) / f"pairs-{_fingerprint(files, more)}.jsonl"


def _extract_in_new_process(
    folder: str | os.PathLike, packages: Sequence[str], more: Sequence[str]
) -> None:
    """Runs this module as a command: this process may hold JAX's or TensorFlow's threads, which a
    fork would break, and a spawned pool would run the caller's main module once more."""
    root = str(pathlib.Path(__file__).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    subprocess.run(
        [sys.executable, "-m", "tasks.docstring_pairs", os.fspath(folder), *packages]
        + ["--more", *more],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _write_whole(path: pathlib.Path, pairs: Iterable[Pair]) -> None:
    """Writes the file under another name first, so that no reader ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w") as file:
            file.writelines(json.dumps(dataclasses.asdict(pair)) + "\n" for pair in pairs)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main() -> None:
    """Extracts the pairs, writes them to the cache, and prints how many each split has."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", help="where to write the pairs")
    parser.add_argument("packages", nargs="*", default=PACKAGES, help="default: our dependencies")
    parser.add_argument("--more", nargs="*", default=(), help="that widen the training split")
    arguments = parser.parse_args()
    files, more = source_files(arguments.packages), source_files(arguments.more)
    if not files:
        sys.exit(f"none of these packages is installed: {', '.join(arguments.packages)}")
    splits = extract(files, more)
    _write_whole(_cache_file(arguments.folder, files, more), itertools.chain(*splits.values()))
    for split, pairs in splits.items():
        packages = collections.Counter(pair.module.split(".")[0] for pair in pairs)
        print(f"{split}: {len(pairs)} pairs, most from {dict(packages.most_common(6))}")


if __name__ == "__main__":
    main()
