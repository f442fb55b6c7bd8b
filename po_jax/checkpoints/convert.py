"""From one checkpoint format to another: planned, written, read back, and only then named."""

from collections.abc import Iterator
import dataclasses
from typing import Any, Literal

from etils import epath
import numpy as np

from po_jax.checkpoints import (
    describe,
    hugging_face,
    hugging_face_config,
    json_files,
    own,
    peft,
    t5x_legacy,
    tokenizer,
    trees,
)
from po_jax.checkpoints import leaves as lazy
from po_jax.checkpoints.directories import new_directory
from po_jax.checkpoints.leaves import Leaf, Leaves
from po_jax.checkpoints.load import Checkpoint, open_checkpoint

Format = Literal["hugging_face", "t5x", "po_jax"]  # of whole models
Adapters = Literal["peft"]
FORMATS, OF_ADAPTERS = Format.__args__, Adapters.__args__


@dataclasses.dataclass(frozen=True)
class Target:
    """What a checkpoint should become.

    Attributes:
      format: of the target; "peft" writes an adapter alone, all others the model that it makes.
      like: a Hugging Face directory whose config, family, tokenizer and other files the target
        takes over; by default the source or, of an adapter, its base, where it is one.
      dtype: of the written parameters; that of the source by default.
      family: Hugging Face's model type; by default that of `like` or of the source, else t5.
      activation: of the feed-forward layer, where neither has it; by default gelu if it is gated,
        else relu.
      vocabulary: a SentencePiece model or tokenizer.json, "bytes", or a directory with one.
      scanned: write the stacked layers of T5X's scalable_t5.
      keep_slots: write what a run goes on with too: the optimiser's slots and, where there is one,
        the moving average of the parameters.
    """

    format: Format | Adapters
    like: epath.PathLike | None = None
    dtype: str | None = None
    family: str | None = None
    activation: str | None = None
    vocabulary: str | None = None
    scanned: bool = False
    keep_slots: bool = False


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What is written where; `plan` makes it, `write` carries it out.

    Attributes:
      source: the opened checkpoint.
      format: of the target.
      config: the network, in the tree that is written.
      family: Hugging Face's model type.
      parameters: as they are written, by T5X's names.
      slots: of the optimiser, as they are written.
      average: moving average of the parameters, as it is written.
      vocabulary: a SentencePiece model or tokenizer.json, "bytes", or a directory with one; None
        for none.
      described: by which checkpoint: the source, its base, or what the target shall be like.
    """

    source: Checkpoint
    format: Format
    config: hugging_face_config.Config
    family: str
    parameters: Leaves
    slots: Leaves
    average: Leaves
    vocabulary: str | None
    described: Checkpoint

    def lines(self) -> Iterator[str]:
        """One line a parameter: its name in the target, shape, dtype, and where it comes from."""
        theirs = hugging_face.names(self.config) if self.format == "hugging_face" else {}
        for name, leaf in self.parameters.items():
            yield f"{theirs.get(name, name)} {leaf.shape} {leaf.dtype.name} <- {leaf.where}"

    def write(self, path: epath.PathLike) -> None:
        """Writes the target, reads it back, and gives it its name.

        Raises:
          FileExistsError: if `path` exists.
          ValueError: if the source is damaged, or what was read back differs. Either way nothing
            is left behind.
        """
        with new_directory(path) as directory:
            source = self.source
            kept = {"slots": self.slots, "average": self.average, "step": source.step}
            if self.format == "po_jax":
                own.write(directory, self.parameters, **kept, about=source.about)
            elif self.format == "t5x":
                t5x_legacy.write(directory, self.parameters, **kept)
                source.about.write(directory)
            else:
                self._write_hugging_face(directory)
                if source.about.kind is not None:  # its config says the rest
                    source.about.write(directory)
            written = open_checkpoint(directory)
            _require_same(self.parameters, written.parameters)
            _require_same(self.slots, written.slots)
            _require_same(self.average, written.average)

    def _write_hugging_face(self, directory: epath.Path) -> None:
        like = self.described.path if self.described.format == "hugging_face" else None
        hugging_face.write(
            directory,
            self.parameters,
            self.config,
            family=self.family,
            kept=self._kept(),
            beside={} if like is None else hugging_face.vision(like),
        )
        if like is not None:
            hugging_face.copy_rest(like, directory)
        if self.vocabulary is None:
            return
        rows = self.config.vocab_size
        if epath.Path(self.vocabulary).is_dir():
            tokenizer.copy(epath.Path(self.vocabulary), directory, embedding_rows=rows)
        else:
            tokenizer.write(directory, self.vocabulary, embedding_rows=rows)

    def _kept(self) -> dict[str, Any]:
        """What config.json says beyond the network."""
        if self.described.format == "hugging_face":
            return json_files.read_object(self.described.path / hugging_face.CONFIG)
        ids = self.described.about.special_ids
        return {} if ids is None else hugging_face_config.special_ids_json(ids)


def plan(source: epath.PathLike, target: Target) -> Conversion | peft.Export:
    """Opens a checkpoint and decides what of it goes where.

    Args:
      source: see `open_checkpoint`.
      target: what to make of it.

    Raises:
      ValueError: naming the option or the leaf that does not fit.
    """
    checkpoint = open_checkpoint(source)
    if target.format == "peft":
        if target != Target("peft"):
            raise ValueError("expected no option beside the format peft, which keeps all as it is")
        return peft.plan(checkpoint)
    where = str(checkpoint.path)
    described = checkpoint.base or checkpoint
    if target.like is not None:
        described = open_checkpoint(target.like)
    if target.like is not None and described.config is None:
        raise ValueError(f"{described.path}: expected a Hugging Face directory to be like.")
    family = target.family or described.family or "t5"
    config = described.config or describe.infer_config(
        checkpoint.parameters, activation=target.activation, where=where
    )
    config = describe.with_layers(config, scanned=target.scanned, family=family)
    parameters = trees.fit(checkpoint.parameters, describe.parameter_shapes(config), where)
    parameters = {name: lazy.finite(leaf) for name, leaf in parameters.items()}
    if target.dtype is not None:
        parameters = {name: lazy.cast(leaf, target.dtype) for name, leaf in parameters.items()}
    if target.keep_slots and not checkpoint.slots:
        raise ValueError(f"{where}: expected Adafactor's slots to keep, got a checkpoint without.")
    vocabulary = target.vocabulary
    if vocabulary is None and tokenizer.present(described.path):
        vocabulary = str(described.path)
    conversion = Conversion(
        source=checkpoint,
        format=target.format,
        config=config,
        family=family,
        parameters=parameters,
        slots=checkpoint.slots if target.keep_slots else {},
        average=checkpoint.average if target.keep_slots else {},
        vocabulary=vocabulary,
        described=described,
    )
    _require_possible(conversion)
    return conversion


def _require_possible(conversion: Conversion) -> None:
    config, source = conversion.config, conversion.source
    if conversion.format == "hugging_face":
        if config.scan_layers or conversion.slots:
            raise ValueError(
                f"{source.path}: expected a target of format t5x or po_jax, which can hold "
                "stacked layers and optimiser slots, got hugging_face."
            )
        return
    if conversion.family == "umt5" and not config.scan_layers:
        raise ValueError(
            f"{source.path}: expected stacked layers (scanned) for a relative bias in every "
            "layer, which T5X's network of named layers does not have."
        )
    if conversion.slots and set(conversion.parameters) != set(source.parameters):
        raise ValueError(
            f"{source.path}: expected source and target with the same tree to keep the "
            "optimiser's slots, got one with stacked layers and one with named ones."
        )


def _require_same(expected: Leaves, found: Leaves) -> None:
    """Compares what was read back with what should have been written, bit for bit."""
    if set(expected) != set(found):
        names = sorted(set(expected) ^ set(found))
        raise ValueError(f"expected the arrays that were written, got others: {names[:3]}.")
    for name in lazy.in_reading_order(expected):
        one, other = expected[name], found[name]
        if one.dtype != other.dtype or not _same_bits(one, other):
            raise ValueError(
                f"{other.where}: expected the values of {one.where} when read back, got others."
            )


def _same_bits(one: Leaf, other: Leaf) -> bool:
    # As bytes, so that a NaN equals itself and -0 differs from 0.
    return one.shape == other.shape and np.array_equal(_bits(one), _bits(other))


def _bits(leaf: Leaf) -> np.ndarray:
    return np.ascontiguousarray(leaf.value()).reshape(-1).view(np.uint8)
