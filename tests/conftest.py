"""Strictness, fake devices and fixtures shared by all tests.

JAX is set up through `jax.config`, not the environment: a command that a test launches as a
subprocess sees the machine as its user would, but for the place where compiled programs are kept.
"""

from contextlib import contextmanager
import os
from pathlib import Path
import subprocess
import tarfile
import zlib

import jax
import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parent.parent

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Random bits must not depend on how an array is sharded.
jax.config.update("jax_threefry_partitionable", True)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
# The suite compiles far more than it computes. This spares LLVM's work on machine code; XLA's own
# passes over the program (fusion, rewriting, partitioning) are those of any run.
jax.config.update("jax_disable_most_optimizations", True)
# Tasks on a user's own data ask which vocabulary they are for.
os.environ.setdefault("PO_JAX_VOCABULARY", "docstrings")
# No fused or reordered arithmetic may hide behind a lower matrix precision.
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(autouse=True)
def _in_the_checkout():
    """Every test begins in the checkout: what another called may have left it."""
    os.chdir(ROOT)


@pytest.fixture
def getkey(request):
    """A function that returns a new random key at every call; the same keys in every run."""
    root = jax.random.key(zlib.crc32(request.node.nodeid.encode()))
    count = iter(range(2**31))
    return lambda: jax.random.fold_in(root, next(count))


@pytest.fixture
def unchecked():
    """Annotations are not checked, as where users run: what a function itself says comes out."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def relaxed():
    """A context manager inside which JAX promotes dtypes and ranks, for third-party code."""

    @contextmanager
    def standard_promotion():
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            yield

    return standard_promotion


@pytest.fixture(scope="session")
def golden(tmp_path_factory) -> Path:
    """Folder of numbers that T5X itself computed: see tests/golden/README.md."""
    folder = tmp_path_factory.mktemp("golden")
    for path in (ROOT / "tests" / "golden").glob("*.tar.xz"):
        with tarfile.open(path) as archive:
            # The first releases of Python 3.11 know no filters.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(folder)
    return folder


def _beside_the_checkout(name: str, what: str) -> Path:
    folder = ROOT.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"needs {what} in ../shared/{name}: not part of this project")
    return folder


@pytest.fixture(scope="session")
def t5x_testdata() -> Path:
    """Folder of T5X's own test files; tests/golden/README.md tells how to fill it."""
    return _beside_the_checkout("golden/t5x_testdata", "test files of T5X's repository")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data: TL;DR and SciTLDR as published, T5's vocabulary.

    Files: tldr/{comparisons,sft}.{train,validation}.jsonl, scitldr/{train,dev}.jsonl and
    t5_spiece/spiece.model.
    """
    return _beside_the_checkout("data", "TL;DR, SciTLDR and T5's vocabulary")


@pytest.fixture
def mounted(tmp_path):
    """Mounts a file system of a megabyte, read-only if asked; skips where nobody may."""
    folders = []

    def mount(options="size=1m"):
        folder = tmp_path / f"disk_{len(folders)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("needs mount")
        if done.returncode:
            pytest.skip(f"needs the right to mount: {done.stderr}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=True)
