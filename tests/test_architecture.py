"""The boundaries of the code base: who may import whom, and how large a file may grow."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 450
MAX_ARGUMENTS = 7
MAX_FUNCTION_LINES = 60

# Parts of po_jax, from the most basic to the most composed: each imports only those before it.
LAYERS = (
    "types",
    "names",
    "files",
    "processes",
    "interruption",
    "metrics",
    "vocabulary",
    "lengths",
    "partitioning",
    "memory",
    "logprobs",
    "losses",
    "language_model",
    "like_lengths",
    "t5",
    "t5gemma",
    "lora",
    "sampling",
    "data",
    "reporting",
    "checkpoints",
    "models",
    "judges",
    "training",
    "planning",
    "evaluation",
    "studies",
    "alignment",
    "game",
    "t5x",
)

CORE = {"jax", "flax", "optax", "numpy", "jaxtyping"}
# What a part of po_jax may import beyond CORE, by file or folder.
EXTRAS = {
    "judges/rouge.py": {"rouge_score"},
    "checkpoints": {"orbax", "tensorstore", "safetensors", "msgpack", "ml_dtypes", "etils"},
    "checkpoints/tokenizer.py": {"sentencepiece"},  # imported where a vocabulary is read
    "metrics.py": {"clu"},
    "files.py": {"etils"},
    "reporting/writers.py": {"etils"},
    "evaluation/plots.py": {"matplotlib"},
    "studies/plots.py": {"matplotlib"},
    "game/plots.py": {"matplotlib"},
    "data/seqio_source.py": {"seqio"},
    "data/json_lines.py": {"etils"},
    "data/records.py": {"etils"},
    "checkpoints/vocabularies.py": {"seqio"},
    "checkpoints/tokenizer_json.py": {"seqio", "tokenizers", "tensorflow"},
    "training": {"etils"},
    "alignment.py": {"etils"},
    "reporting/tensorboard.py": {"etils", "tensorflow"},
    "reporting/weights_and_biases.py": {"etils", "wandb"},
    "t5x": {"t5x", "seqio", "tensorflow", "etils"},
}
# These load outside the core: the rest of po_jax must import where their libraries are missing.
OUTSIDE_CORE = {"seqio", "tensorflow", "matplotlib", "rouge_score", "t5x"}
NEVER_IN_CORE = sorted(OUTSIDE_CORE | {"gin", "torch", "transformers", "clu", "sentencepiece"})


def _files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def _imports(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(path)} - sys.stdlib_module_names


def _extras(path: Path) -> set[str]:
    place = path.relative_to(ROOT / "po_jax")
    keys = [place.as_posix(), *(parent.as_posix() for parent in place.parents)]
    return set().union(*(EXTRAS.get(key, set()) for key in keys))


def test_dependencies_point_one_way():
    for path in _files("po_jax"):
        layer = path.relative_to(ROOT / "po_jax").parts[0].removesuffix(".py")
        if layer == "__init__":
            continue
        assert layer in LAYERS, f"{path.relative_to(ROOT)} is in no known layer"
        for name in _imports(path):
            if name.startswith("po_jax."):
                other = name.split(".")[1]
                assert LAYERS.index(other) <= LAYERS.index(layer), (
                    f"{path.relative_to(ROOT)} imports {name}, which is above it"
                )


def test_no_line_is_exempt_from_the_formatter():
    for path in _files("po_jax", "tasks", "launch", "tests"):
        assert "fmt: " + "skip" not in path.read_text(), path.relative_to(ROOT)


def test_only_its_own_room_and_its_checkpoints_know_a_network_by_name():
    for path in _files("po_jax", "launch"):
        place = path.relative_to(ROOT / "po_jax") if path.is_relative_to(ROOT / "po_jax") else path
        if place.as_posix() != "checkpoints/describe.py":
            for room, name in (("t5", "T5LM"), ("t5gemma", "T5GemmaLM")):
                assert place.parts[0] == room or name not in path.read_text(), path.relative_to(
                    ROOT
                )


def test_po_jax_imports_only_what_it_may():
    for path in _files("po_jax"):
        unexpected = _packages(path) - CORE - _extras(path) - {"po_jax"}
        assert not unexpected, f"{path.relative_to(ROOT)} imports {sorted(unexpected)}"


def test_t5x_is_known_in_its_own_room_alone():
    for path in _files("po_jax", "tasks", "launch"):
        if not path.is_relative_to(ROOT / "po_jax" / "t5x"):
            assert "t5x" not in _packages(path), path.relative_to(ROOT)


def test_only_data_vocabularies_and_tasks_know_seqio():
    places = {
        path.relative_to(ROOT).as_posix()
        for path in _files("po_jax", "launch")
        if "seqio" in _packages(path) and not path.is_relative_to(ROOT / "po_jax" / "t5x")
    }
    assert places == {
        "po_jax/checkpoints/tokenizer_json.py",
        "po_jax/checkpoints/vocabularies.py",
        "po_jax/data/seqio_source.py",
        "launch/settings.py",
    }


def test_tasks_and_launch_keep_to_their_own():
    for path in _files("tasks"):
        assert not _packages(path) & {"gin", "torch", "launch"}, path.relative_to(ROOT)
    for path in _files("launch"):
        assert "torch" not in _packages(path), path.relative_to(ROOT)


def test_core_imports_without_the_data_and_plotting_libraries():
    modules = []
    for path in _files("po_jax"):
        if not _extras(path) & OUTSIDE_CORE:
            parts = path.relative_to(ROOT).with_suffix("").parts
            modules.append(".".join(parts).removesuffix(".__init__"))
    program = f"""
import importlib, sys
for name in {NEVER_IN_CORE}:
    sys.modules[name] = None  # importing it raises ImportError
for name in {modules}:
    importlib.import_module(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["po_jax", "tasks", "launch", "tests"])
def test_no_file_exceeds_the_most_lines(folder):
    for path in _files(folder):
        lines = len(path.read_text().splitlines())
        assert lines <= MAX_LINES, f"{path.relative_to(ROOT)} has {lines} lines"


def _functions(path: Path) -> list[ast.FunctionDef]:
    """Functions and methods of a file, but for constructors."""
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node for node in functions if node.name not in ("__init__", "__new__")]


@pytest.mark.parametrize("folder", ["po_jax", "tasks", "launch"])
def test_no_function_takes_more_than_seven_arguments(folder):
    too_many = []
    for path in _files(folder):
        for function in _functions(path):
            given = function.args
            names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            if len(set(names) - {"self", "cls"}) > MAX_ARGUMENTS:
                too_many.append(f"{path.relative_to(ROOT)}: {function.name}")
    assert not too_many


@pytest.mark.parametrize("folder", ["po_jax", "tasks", "launch"])
def test_no_function_exceeds_the_most_lines(folder):
    for path in _files(folder):
        for function in _functions(path):
            lines = function.end_lineno - function.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{path.relative_to(ROOT)}: {function.name}"
