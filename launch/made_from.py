"""What of gin's configuration a run was made from: what it may not change when it is resumed."""

from argparse import Namespace
from typing import Any

from launch import gin_files
from po_jax.training.made_from import MAY_CHANGE

# Macros that a resumed run may give other values. The two paths may have moved: what they lead to
# is compared. Bindings that may change are named by `po_jax.training.made_from`.
_MACROS = frozenset(
    "TRAIN_STEPS MODEL_DIR INITIAL_CHECKPOINT_PATH JUDGE_CHECKPOINT_PATH LOG_PERIOD EVAL_PERIOD "
    "SAVE_PERIOD WRITERS EVAL_BATCHES EVAL_SPLIT MICRO_BATCHES NUM_PARTITIONS".split()
)
# What only evaluates or records.
_ROOMS = ("eval/", "held_out.", "manager.", "writers.", "tensorboard.", "weights_and_biases.")


def settings(arguments: Namespace) -> dict[str, Any]:
    """The values, by macro or binding, that change what a run learns."""
    statements = gin_files.read(arguments.files, arguments.bindings, arguments.folders)
    return {
        statement.name: _json(statement.value)
        for statement in statements
        if not (statement.is_import or _may_change(statement.name))
    }


def _may_change(name: str) -> bool:
    return name in _MACROS or name.rpartition(".")[2] in MAY_CHANGE or name.startswith(_ROOMS)


def _json(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | None) else repr(value)
