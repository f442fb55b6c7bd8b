"""The same training by T5X's unmodified loop and by our own, on the same batches."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import seqio
from t5x import adafactor, partitioning, train, utils
import tensorflow as tf

from po_jax.checkpoints.manager import CheckpointManager
from po_jax.data.corpus import Batch
from po_jax.partitioning import Partitioner
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.t5x.converters import comparison_lengths, prompt_lengths, texts_of
from po_jax.t5x.fed_trainer import FedTrainer
from po_jax.t5x.start import Start
from po_jax.training import loop, optimizers
from po_jax.training.state import TrainState
from tasks import registration

LENGTHS = {"inputs": 12, "targets": 7}
BATCH_SIZE = 8
RATE = 1e-3
CONFIG = T5Config(
    vocab_size=32,
    emb_dim=16,
    num_heads=4,
    head_dim=4,
    num_encoder_layers=2,
    num_decoder_layers=2,
    mlp_dim=32,
    mlp_activations=("gelu", "linear"),
    logits_via_embedding=False,
    dropout_rate=0.0,
    dtype="float32",
)
BFLOAT16 = dataclasses.replace(CONFIG, dtype="bfloat16")
SCANNED = dataclasses.replace(CONFIG, scan_layers=True, shared_relative_bias=False)


class Letters(seqio.Vocabulary):
    """One id a letter: whatever a policy draws can be read, and shares words with answers."""

    eos_id, unk_id, bos_id = 1, 2, None

    @property
    def _base_vocab_size(self):
        return 29

    def _encode(self, s):
        return [ord(letter) - 94 for letter in s.lower() if letter.isascii() and letter.isalpha()]

    def _decode(self, ids):
        return " ".join(chr(int(i) + 94) for i in ids if 2 < i < 29)

    def _encode_tf(self, s):
        codes = tf.strings.unicode_decode(tf.strings.regex_replace(s, "[^a-z]", ""), "UTF-8")
        return codes - 94

    def _decode_tf(self, ids):
        return tf.numpy_function(lambda row: self._decode(row).encode(), [ids], tf.string)

    def __eq__(self, other):
        return isinstance(other, Letters)


VOCABULARY = Letters()


def _rows(split: str) -> list[dict[str, Any]]:
    random = np.random.default_rng(len(split))

    def words(least, most):
        letters = random.integers(97, 123, random.integers(least, most))
        return " ".join(map(chr, letters))

    return [
        {
            "inputs": words(4, 16),
            "completion_1": words(2, 9),
            "completion_2": words(2, 9),
            "preference": float(random.choice([0.0, 1.0, 0.7, 0.5])),
            "targets": words(2, 9),
            "answers": [words(2, 9) for _ in range(random.integers(1, 3))],
        }
        for _ in range(37)
    ]


def _columns(*names: str) -> Callable[[str], list[dict[str, Any]]]:
    return lambda split: [{name: row[name] for name in names} for row in _rows(split)]


def register() -> None:
    """Three small tasks, once."""
    if "under_t5x_sft" in seqio.TaskRegistry.names():
        return
    pair = ("inputs", "completion_1", "completion_2", "preference")
    registration.add_comparisons("under_t5x_comparisons", _columns(*pair), VOCABULARY)
    registration.add_prompts("under_t5x_prompts", _columns("inputs", "answers"), VOCABULARY)
    registration.add_sft("under_t5x_sft", _columns("inputs", "targets", "answers"), VOCABULARY)


TASK_LENGTHS = {
    "under_t5x_comparisons": comparison_lengths(LENGTHS),
    "under_t5x_prompts": prompt_lengths(LENGTHS),
    "under_t5x_sft": LENGTHS,
}


def write_start(folder: Path, language_model: T5LM, seed: int = 3, scale: float = 1.0) -> str:
    """A checkpoint of ours to start from, or of a judge; one that is there already is taken."""
    if (folder / "checkpoint_0").exists():
        return str(folder)
    params = language_model.init(jax.random.key(seed))
    params = jax.tree.map(lambda x: x * scale, params)
    manager = CheckpointManager(folder)
    manager.save(0, TrainState(np.int32(0), params, {}))
    manager.close()
    return str(folder)


class Mesh(partitioning.PjitPartitioner):
    """T5X's partitioner on so many of the processor's devices; T5X's own takes all of them."""

    def __init__(self, data: int = 1, model: int = 1):
        super().__init__(num_partitions=1)
        devices = np.array(jax.devices()[: data * model]).reshape(data, model)
        self._own = jax.sharding.Mesh(devices, ("data", "model"))

    @property
    def mesh(self) -> jax.sharding.Mesh:
        return self._own


@dataclasses.dataclass(frozen=True)
class Batches:
    """What T5X's own pipeline yields, by step."""

    config: utils.DatasetConfig
    converter: Callable[..., Any]
    steps: int
    batch_size: int = BATCH_SIZE

    @functools.cached_property
    def _read(self) -> list[dict[str, np.ndarray]]:
        dataset = utils.get_dataset(self.config, 0, 1, self.converter)
        return list(dataset.take(self.steps).as_numpy_iterator())

    def batch(self, step: int) -> Batch:
        arrays = self._read[step]
        tokens = {name: x for name, x in arrays.items() if not name.startswith("text/")}
        return Batch(tokens, texts_of(arrays), np.ones(self.batch_size, bool))

    def made_from(self) -> dict[str, Any]:
        return {"task": self.config.mixture_or_task_name}


@dataclasses.dataclass(frozen=True)
class Case:
    """What both loops train.

    Attributes:
      model: with T5X's optimiser.
      task: one of the three.
      feed: of our loop; T5X's trainer gets `given` of it.
      given: whether T5X's trainer has the feed.
      start: the checkpoint.
    """

    model: Any
    task: str
    feed: Callable[..., Any]
    given: bool
    start: str
    updates: loop.Updates = loop.Updates()
    seed: int = 0

    def data(self) -> utils.DatasetConfig:
        return utils.DatasetConfig(
            mixture_or_task_name=self.task,
            task_feature_lengths=TASK_LENGTHS[self.task],
            split="train",
            batch_size=BATCH_SIZE,
            shuffle=False,
            seed=0,
        )

    def by_t5x(self, folder: Path, partitioner: Any, steps: int = 10, **options: Any):
        """(metrics by step, final state); the folder resumes."""
        period = options.pop("period", steps)
        step, state = train.train(
            model=self.model,
            train_dataset_cfg=self.data(),
            train_eval_dataset_cfg=None,
            infer_eval_dataset_cfg=None,
            checkpoint_cfg=utils.CheckpointConfig(
                save=utils.SaveCheckpointConfig(
                    period=period, dtype="float32", keep=None, save_dataset=True
                )
            ),
            partitioner=partitioner,
            trainer_cls=functools.partial(
                FedTrainer,
                feed=self.feed if self.given else None,
                initial_checkpoint_path=self.start if self.given else None,
                random_seed=self.seed,
                updates=self.updates,
                learning_rate_fn=lambda step: jax.numpy.float32(RATE),
            ),
            train_state_initializer_cls=functools.partial(
                Start, initial_checkpoint_path=self.start, updates=self.updates
            ),
            model_dir=str(folder),
            total_steps=steps,
            eval_steps=1,
            eval_period=0,
            random_seed=0,
            summarize_config_fn=lambda *_: None,
            **{"stats_period": 1, **options},
        )
        assert step == steps
        return events(folder / "train"), state

    def by_us(self, folder: Path, partitioner: Partitioner, steps: int = 10, **options: Any):
        """(metrics by step, final state)."""
        axes = self.model.language_model.parameter_axes()
        state = loop.Trainer(
            model=self.model,
            optimizer=optimizers.Adafactor(RATE, axes),
            feed=self.feed,
            data=lambda: Batches(self.data(), self.model.FEATURE_CONVERTER_CLS, steps),
            partitioner=partitioner,
            model_dir=str(folder),
            total_steps=steps,
            initial_checkpoint_path=self.start,
            random_seed=self.seed,
            updates=self.updates,
            **{"log_period": 1, **options},
        ).train()
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return {line["step"]: line for line in lines if line["split"] == "train"}, state


def optimizer_def() -> adafactor.Adafactor:
    """T5X's own, as its model files have it."""
    return adafactor.Adafactor(
        decay_rate=0.8,
        step_offset=0,
        logical_factor_rules=adafactor.standard_logical_factor_rules(),
    )


def events(folder: Path) -> dict[int, dict[str, float]]:
    """The scalars of a folder of TensorBoard's event files, by step and name; the newest hold."""
    found: dict[int, dict[str, float]] = {}
    for path in sorted(folder.glob("events*"), key=lambda path: path.stat().st_mtime):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                array = tf.make_ndarray(value.tensor)
                if array.dtype == np.float32 and array.ndim == 0:
                    found.setdefault(event.step, {})[value.tag] = float(array)
    return found


def assert_same_metrics(
    theirs: Mapping[int, Mapping[str, float]],
    ours: Mapping[int, Mapping[str, float]],
    tolerance: float,
) -> float:
    """Every number of our loop, but times, is T5X's under the same name.

    Returns the largest difference, beside the metric's largest value in the run: a gradient or a
    margin near 0 is what is left of larger numbers.
    """
    worst = 0.0
    names = {name for line in ours.values() for name in line} - {"step", "split", "non_finite"}
    for name in sorted(name for name in names if not name.startswith("seconds_")):
        values = {step: line[name] for step, line in ours.items() if name in line}
        largest = max(1.0, *map(abs, values.values()))
        for step, value in values.items():
            difference = abs(theirs[step][name] - value) / largest
            worst = max(worst, difference)
            assert difference <= tolerance, (
                f"step {step}, {name}: {theirs[step][name]}, ours {value}"
            )
    return worst


def difference(theirs: Any, ours: Any) -> float:
    """The largest difference between two trees of parameters, beside each array's largest entry."""
    one, other = (
        flax.traverse_util.flatten_dict(flax.core.unfreeze(tree), sep="/")
        for tree in (theirs, ours)
    )
    assert one.keys() == other.keys()
    return max(
        float(np.abs(np.asarray(one[name]) - np.asarray(other[name])).max())
        / max(float(np.abs(np.asarray(other[name])).max()), 1e-9)
        for name in one
    )
