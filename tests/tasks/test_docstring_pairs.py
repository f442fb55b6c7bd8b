"""Extraction from packages written for the test, and from numpy as installed."""

import os
from string import ascii_lowercase as LETTERS
import subprocess
import sys

import pytest

from tasks import docstring_pairs

SOURCE = '''
"""Says what {subject} is as a module.

{body}
"""
raise RuntimeError("nobody imports this")

try:
    class Outer:
        def method(self, row: int, *, chunk=9):
            """Says what {subject} is as a method.

            Of a method, {body}
            """
except ImportError:
    pass

def again():
    """Says what {subject} is as a method.

    Here a second function has the summary of another one: that adds nothing, so it is left out.
    """

def alone_{number}():
    """Needs no body for {subject}."""

def short():
    """Too short."""
'''


def body(module: int) -> str:
    """Thirty words that no other module has."""
    return " ".join(f"{LETTERS[module % 26]}{LETTERS[i % 26]}{module}x{i}words" for i in range(30))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `sample` of 40 modules, some of them not to be read."""
    root = tmp_path / "site" / "sample"
    for i in range(40):
        path = root / ("tests" if i == 0 else "deep" if i % 2 else "") / f"module_{i}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SOURCE.format(subject=f"subject {i}", number=i, body=body(i)))
    (root / "__init__.py").write_text("")
    (root / "broken.py").write_text('"""Looks like a summary line.\n\nBut""" def (')
    (root / "thing_test.py").write_text((root / "module_2.py").read_text())
    monkeypatch.syspath_prepend(str(root.parent))
    return root


def test_modules_are_found_in_order_without_tests(package):
    files = docstring_pairs.source_files(["sample", "not_installed_anywhere"])
    assert list(files) == sorted(files)
    assert len(files) == 39 + len(["__init__", "broken"])
    assert files["sample.deep.module_3"] == package / "deep" / "module_3.py"
    assert not [name for name in files if "test" in name]


def test_pairs_of_a_file(package):
    pairs = docstring_pairs.pairs_of_file("sample.module_2", package / "module_2.py")
    assert [pair.name for pair in pairs] == [
        "sample.module_2",
        "sample.module_2.Outer.method",
        "sample.module_2.again",
        "sample.module_2.alone_2",
    ]
    assert pairs[0].summary == "Says what subject 2 is as a module."
    assert pairs[0].document.startswith(f"module 2\nmodule sample.module_2\n{body(2)[:100]}")
    assert pairs[1].heading == "method of outer\nsample.Outer.method(row: int, *, chunk=9)"
    assert pairs[3].document == "alone 2\nsample.alone_2()"
    assert pairs[3].summary == "Needs no body for subject 2."
    assert docstring_pairs.pairs_of_file("sample.broken", package / "broken.py") == []
    assert "sample" not in sys.modules


def test_load_splits_by_module_and_drops_repetitions(package, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    splits = docstring_pairs.load(tmp_path / "cache", ["sample"])
    everything = [pair for pairs in splits.values() for pair in pairs]
    # Every module repeats the name and signature of the method, so only the first has it.
    assert len({pair.summary for pair in everything}) == len(everything) == 2 * 39 + 1
    for split, pairs in splits.items():
        assert pairs == sorted(pairs, key=lambda pair: pair.module)
        assert {docstring_pairs.split_of(pair.module) for pair in pairs} <= {split}


def test_cache_is_read_back_until_a_file_changes(package, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    cache = tmp_path / "cache"
    splits = docstring_pairs.load(cache, ["sample"])
    (file,) = cache.iterdir()  # nothing partial is left beside it
    with monkeypatch.context() as context:
        context.setattr(docstring_pairs, "_extract_in_new_process", None)
        assert docstring_pairs.load(cache, ["sample"]) == splits
    os.remove(package / "module_2.py")
    assert docstring_pairs.load(cache, ["sample"]) != splits
    assert len(list(cache.iterdir())) == 2 and file.exists()


@pytest.fixture
def two_packages(tmp_path, monkeypatch):
    """Writes a module of `one` or `two` that belongs to a split, and reads both."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))

    def write(package: str, split: str, text: str):
        folder = tmp_path / "site" / package
        folder.mkdir(parents=True, exist_ok=True)
        names = {docstring_pairs.split_of(f"{package}.m{i}"): f"m{i}.py" for i in range(200)}
        (folder / names[split]).write_text(text)

    def load(more=()):
        splits = docstring_pairs.load(tmp_path / "cache", ["one"], more)
        return {split: [pair.summary for pair in pairs] for split, pairs in splits.items()}

    return write, load


def test_what_repeats_training_text_is_not_held_out(two_packages):
    write, load = two_packages
    for ending, split in (("end", "train"), ("finish", "test")):
        text = f"The {ending} of a story told twice.\n\n{ending}. {body(0)}"
        write("one", split, f'"""{text}\n"""\n')
    assert load() == {"train": ["The end of a story told twice."], "validation": [], "test": []}


def test_the_same_name_with_nearly_the_same_summary_is_not_held_out(two_packages):
    write, load = two_packages
    write("one", "train", 'def join(rows):\n    """Joins all rows along an axis."""\n')
    write("one", "test", 'def join(rows, n):\n    """Joins all rows along the axis."""\n')
    write("one", "validation", 'def join(x):\n    """Waits for the thread to end."""\n')
    splits = load()
    assert splits["validation"] == ["Waits for the thread to end."]
    assert splits["test"] == []


def test_more_packages_widen_training_alone_and_repeat_nothing_held_out(two_packages):
    write, load = two_packages
    write("one", "test", 'def join(rows):\n    """Joins all rows along an axis."""\n')
    write("two", "test", 'def part(rows):\n    """Parts all rows in the middle."""\n')
    copies = 'def join(rows, n):\n    """Joins all rows along the axis."""\n'
    write("two", "train", f'{copies}\ndef turn(rows):\n    """Turns all rows upside down."""\n')
    assert load() == {"train": [], "validation": [], "test": ["Joins all rows along an axis."]}
    assert load(["two"]) == {**load(), "train": ["Turns all rows upside down."]}


def test_split_shares_are_close_to_what_is_asked():
    splits = [docstring_pairs.split_of(f"package.module_{i}") for i in range(10_000)]
    for split in ("validation", "test"):
        # Binomial(10000, 0.05) has a standard deviation of 22.
        assert abs(splits.count(split) - 500) < 4 * 22


def test_numpy_gives_pairs_of_known_wording():
    files = docstring_pairs.source_files(["numpy"])
    module = "numpy.lib._shape_base_impl"
    pairs = {pair.name: pair for pair in docstring_pairs.pairs_of_file(module, files[module])}
    split = pairs[f"{module}.split"]
    assert split.summary == "Split an array into multiple sub-arrays as views into ary."
    assert split.document.startswith("split\nnumpy.split(ary, indices_or_sections, axis=0)\n")
    assert "Args: ary: Array to be divided into sub-arrays." in split.document


def test_command_says_when_no_package_is_there(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tasks.docstring_pairs", tmp_path, "not_installed_anywhere"],
        cwd=os.path.dirname(os.path.dirname(docstring_pairs.__file__)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "none of these packages is installed: not_installed_anywhere" in done.stderr
