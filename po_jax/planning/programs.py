"""The programs that a run goes through at every step, traced on shapes, and what lies beside them.

An online run draws (the sampler), asks the judge, scores with the reference where the sampler did
not, and updates (the step). An offline run scores each example once, and updates.
"""

import dataclasses
import functools
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from po_jax.data.corpus import BatchStream, Corpus, Layout, Ragged
from po_jax.judges.models import JudgeModel
from po_jax.language_model import LanguageModel, as_read, joined, trained_part
from po_jax.lengths import Lengths
from po_jax.partitioning import Partitioner, laid_out, shardings_of, whole_parameters
from po_jax.sampling import Strategy, sample
from po_jax.training.loop import Trainer
from po_jax.training.offline_feed import score_reference
from po_jax.training.state import TrainState, laid_out_run
from po_jax.training.step import make_train_step
from po_jax.types import PreferenceBatch

Shapes = Any  # a tree of jax.ShapeDtypeStruct with shardings


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How an online run draws and judges.

    Attributes:
      length: tokens a completion.
      betas: weights of the partner in the two mixtures.
      against_average: whether the partner is the policy's moving average.
      pieces: that a batch is drawn and judged in.
      judge: a trained one; None for one that is no program of the devices.
      judge_lengths: tokens of a prompt and of a completion, as the judge reads them.
    """

    length: int
    betas: tuple[Any, Any]
    against_average: bool
    pieces: int
    judge: JudgeModel | None
    judge_lengths: tuple[int, int]

    @property
    def mixes(self) -> bool:
        return any(beta != 0 for beta in self.betas)


@dataclasses.dataclass(frozen=True)
class Program:
    """One program of a run.

    Attributes:
      traced: on shapes with shardings.
      trips: of its decoding loop, if it has one.
      runs: how often it runs at a step.
      given: bytes a chip of what it is given and what stays there between programs.
      known: bytes a chip of what the compiler lays out within it, by name, as far as shapes tell.
    """

    traced: Any
    trips: int
    runs: int
    given: float
    known: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Work:
    """What a run keeps on the devices, and its programs, by name.

    Attributes:
      kept: bytes a chip of what stays between programs, by name.
      programs: in the order of a step.
      tokens: of prompts and completions that a step learns from.
    """

    kept: dict[str, float]
    programs: dict[str, Program]
    tokens: int


def work_of(trainer: Trainer, drawing: Drawing | None, scored: bool) -> Work:
    """The work of a run, without its data, parameters or devices.

    Args:
      trainer: the run; its data may be of made-up examples.
      drawing: of an online run.
      scored: whether an offline run's examples are scored by the reference.
    """
    return _Shapes(trainer).work(drawing, scored)


def made_up(layout: Layout, batch_size: int) -> BatchStream:
    """Batches of the shapes that a run's have, of one example of one token."""
    one = Ragged(np.ones(1, np.int32), np.ones(1, np.int64))
    corpus = Corpus(
        tokens=dict.fromkeys(layout.features, one),
        texts={},
        sizes=[1],
        rates=[1.0],
        preference=np.ones(1, np.float32),
    )
    return BatchStream(corpus, layout, batch_size)


def chip_bytes(shapes: Shapes) -> float:
    """Bytes that each chip holds of arrays."""
    sizes = (
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(shapes)
    )
    return sum(sizes, 0.0)


class _Shapes:
    """The shapes of a run's arrays, laid out."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        # No row is shorter than it may be.
        self._partitioner = dataclasses.replace(trainer.partitioner, lengths=Lengths((1.0,)))
        model = self._language_model = trainer.model.language_model
        average = trainer.updates.average_decay is not None

        def create(params):
            return TrainState.create(params, trainer.optimizer, average=average)

        self._state, self._frozen = laid_out_run(model, create, self._partitioner)
        self._policy = joined(self._state.params, self._frozen)
        self._batch = trainer.read().batch(0).arrays

    def work(self, drawing: Drawing | None, scored: bool) -> Work:
        kept = {
            "parameters": chip_bytes(self._state.params),
            "optimiser": chip_bytes(self._state.optimizer_state),
        }
        if self._state.average is not None:
            kept["average"] = chip_bytes(self._state.average)
        if self._frozen:
            kept["base"] = chip_bytes(self._frozen)
        programs = {}
        # With adapters the reference has the policy's base, and that base's type.
        dtype = None if self._frozen else self._trainer.reference_dtype
        start = joined(_cast(self._state.params, dtype), self._frozen)
        reference = trained_part(self._language_model, _as_read(self._language_model, start))
        if drawing is not None or scored:
            kept["reference"] = chip_bytes(reference)
        if drawing is not None:
            programs["sampler"] = self._sampler(drawing, reference)
            if drawing.judge is not None:
                network = drawing.judge.language_model
                params = _as_read(network, _parameters(network, self._partitioner))
                kept["judge"] = chip_bytes(params)
                programs["judge"] = self._judge(drawing, params)
        if scored or (drawing and (drawing.against_average or not drawing.mixes)):
            programs["scoring"] = self._scoring(drawing, reference)
        programs["step"] = self._step(drawing, scored)
        batch = self._step_batch(drawing, scored)
        tokens = sum(
            math.prod(leaf.shape)
            for leaf in jax.tree.leaves(batch)
            if len(leaf.shape) > 1 and leaf.dtype == jnp.int32
        )
        return Work(kept, programs, tokens)

    def _sampler(self, drawing: Drawing, reference: Shapes) -> Program:
        model, rows = self._language_model, self._partitioner.batch
        partner = None
        if drawing.mixes:
            partner = self._state.average if drawing.against_average else reference
        prompts, length = self._batch["prompt"].shape
        prompts //= drawing.pieces
        given = (self._policy, partner)
        with self._partitioner.activate():
            traced = sample.trace(
                model,
                Strategy(drawing.length),
                *given,
                jax.ShapeDtypeStruct((prompts, length), jnp.int32, sharding=rows),
                jax.ShapeDtypeStruct((prompts, 2), jnp.float32, sharding=rows),
                self._key(),
            )
        caches, copies = self._cache(prompts, length, drawing.length), self._copies(self._policy)
        if partner is not None:
            caches *= 2
            copies += 0.0 if self._frozen else self._copies(partner)
        known = {"caches": caches, "copies": copies}
        return Program(traced, drawing.length, drawing.pieces, chip_bytes(given), known)

    def _cache(self, prompts: int, prompt_length: int, length: int) -> float:
        """Bytes a chip of one decoder's keys and values."""
        model, partitioner = self._language_model, self._partitioner

        def prefill(params, prompt):
            return jax.tree.leaves(model.prefill(params, model.encode(params, prompt), 2, length))

        prompt = jax.ShapeDtypeStruct((prompts, prompt_length), jnp.int32)
        cache = jax.eval_shape(prefill, self._policy, prompt)
        total = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in cache)
        params, axes = self._policy, model.parameter_axes()
        split = any(
            "model" in leaf.sharding.spec and {"heads", "joined_kv"} & set(names)
            for leaf, names in zip(
                jax.tree.leaves(params),
                jax.tree.structure(params).flatten_up_to(axes),
                strict=True,
            )
        )
        return total / partitioner.copies / (partitioner.mesh.shape["model"] if split else 1)

    def _copies(self, params: Shapes) -> float:
        """Bytes a chip of parameters as the decoding loop reads them; 0 if as they lie."""
        model = self._language_model
        ready = jax.eval_shape(model.for_sampling, params)
        with self._partitioner.activate(), whole_parameters():
            rules = tuple(nn.get_logical_axis_rules())
        layout = dataclasses.replace(self._partitioner, rules=rules)
        placed = laid_out(ready, layout.shardings(ready, model.parameter_axes()))
        needed, given = chip_bytes(placed), chip_bytes(params)
        return 0.0 if needed == given else needed

    def _judge(self, drawing: Drawing, params: Shapes) -> Program:
        pairs = self._batch["prompt"].shape[0] // drawing.pieces
        prompt, completion = drawing.judge_lengths
        rows = self._partitioner.batch
        with self._partitioner.activate():
            traced = jax.jit(drawing.judge.judge).trace(
                params,
                jax.ShapeDtypeStruct((pairs, prompt), jnp.int32, sharding=rows),
                jax.ShapeDtypeStruct((pairs, 2, completion), jnp.int32, sharding=rows),
            )
        return Program(traced, 1, drawing.pieces, chip_bytes(params), {})

    def _scoring(self, drawing: Drawing | None, reference: Shapes) -> Program:
        batch, reference = self._step_batch(drawing, True), joined(reference, self._frozen)
        with self._partitioner.activate():
            traced = score_reference.trace(
                self._language_model, reference, batch.prompt, batch.completion, batch.mask
            )
        return Program(traced, 1, 1, chip_bytes(reference), {})

    def _step(self, drawing: Drawing | None, scored: bool) -> Program:
        trainer = self._trainer
        frozen = [self._frozen] if self._frozen else []
        step = make_train_step(
            trainer.model,
            trainer.optimizer,
            self._partitioner,
            shardings_of(self._state),
            *map(shardings_of, frozen),
            **dataclasses.asdict(trainer.updates),
        )
        batch = self._step_batch(drawing, scored)
        traced = step.trace(self._state, batch, self._key(), *frozen)
        known = {"gradients": chip_bytes(_cast(self._state.params, "float32"))}
        return Program(traced, 1, 1, chip_bytes((self._state, frozen)), known)

    def _step_batch(self, drawing: Drawing | None, scored: bool) -> Any:
        """The shapes of a batch as the feeds make them."""
        arrays = {name: (rows.shape, rows.dtype) for name, rows in self._batch.items()}
        if drawing is not None or scored:
            rows = arrays["prompt"][0][0]
            if drawing is not None:
                pair = (rows, 2, drawing.length)
                arrays |= {"completion": (pair, jnp.int32), "mask": (pair, bool)}
                arrays["preference"] = ((rows,), jnp.float32)
            arrays["reference_logprob"] = ((rows, 2), jnp.float32)
            arrays["step"] = ((rows,), jnp.int32)
        place = self._partitioner.batch
        shapes = {
            name: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
            for name, (shape, dtype) in arrays.items()
        }
        return PreferenceBatch(**shapes) if "reference_logprob" in shapes else shapes

    def _key(self) -> jax.ShapeDtypeStruct:
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=self._partitioner.replicated)


def _parameters(model: LanguageModel, partitioner: Partitioner) -> Shapes:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return laid_out(shapes, partitioner.shardings(shapes, model.parameter_axes()))


def _as_read(model: LanguageModel, params: Shapes) -> Shapes:
    return laid_out(jax.eval_shape(functools.partial(as_read, model), params), shardings_of(params))


def _cast(params: Shapes, dtype: str | None) -> Shapes:
    if dtype is None:
        return params
    return jax.tree.map(lambda leaf: leaf.update(dtype=jnp.dtype(dtype)), params)
