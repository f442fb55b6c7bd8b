"""What po_jax installs and needs: the library, its seqio tasks, its gin files and its commands.

Its name, version and description are in `pyproject.toml`. Versions of other packages are ranges
here; `constraints.txt` holds the one tested set, which the Makefile installs.
"""

from setuptools import find_packages, setup

COMMANDS = (
    "train",
    "evaluate",
    "sample",
    "label",
    "study",
    "convert",
    "play",
    "plan",
    "cluster",
    "quickstart",
    "tldr",
)

# The gin files live in `gin/` of the checkout. In a wheel they cannot: `gin` is gin-config's own
# package. There they become package data of `launch`, whose `GIN_FOLDER` knows both places.
PACKAGES = find_packages(include=["po_jax", "po_jax.*", "tasks", "tasks.*", "launch", "launch.*"])

setup(
    packages=[*PACKAGES, "launch.gin"],
    package_dir={"launch.gin": "gin"},
    package_data={
        "launch.gin": ["**/*.gin"],
        "launch": ["docstrings_sft/*", "docstrings_judge/*", "docstrings_reward/*"],
        "tasks": ["*.model"],
    },
    install_requires=[
        "jax>=0.10,<0.13",
        "flax>=0.12",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.11",
        "jaxtyping>=0.3",
        "numpy>=2",
        # Data, configuration and evaluation.
        "seqio>=0.0.20",
        "tensorflow-datasets>=4.9.8",
        "gin-config>=0.5,<0.6",
        "rouge-score>=0.1.2",
        "matplotlib>=3.9",
    ],
    extras_require={
        "test": [
            "beartype",
            "codespell",
            "mypy",
            "pytest",
            "pytest-xdist",
            "ruff",
            "safetensors",
            "scipy",
            "torch",
            "transformers>=5",
        ],
        "docs": ["mkdocs-material>=9.7", "mkdocstrings-python>=2", "ruff"],
        "gpu": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "plan": ["jax[tpu]", "jax-cuda13-plugin", "nvidia-cuda-nvcc", "nvidia-nvvm"],
        "hf": ["transformers>=5"],
        "gcs": ["google-cloud-storage>=3"],  # by which Orbax asks what kind a bucket is
        "wandb": ["wandb>=0.20"],
        "opponents": ["ctranslate2"],  # of the benchmarks; torch and transformers come with test
        "tldr": ["huggingface_hub", "pyarrow"],
    },
    entry_points={
        "console_scripts": [f"po-jax-{name} = launch.{name}:main" for name in COMMANDS],
    },
)
