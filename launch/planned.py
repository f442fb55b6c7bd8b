"""The configured run as `launch.plan` sees it, and what is tried where it does not fit."""

from argparse import Namespace
from collections.abc import Callable, Sequence
import copy
import dataclasses
from typing import Any

import gin
import jax

from launch import gin_support, settings
from po_jax import judges
from po_jax.data import layouts
from po_jax.partitioning import make_partitioner
from po_jax.planning import programs
from po_jax.planning.chips import Topology
from po_jax.planning.plan import Plan, plan
from po_jax.training import loop
from po_jax.training.offline_feed import OfflineFeed
from po_jax.training.online_feed import OnlineFeed
from po_jax.training.run import Run

ADAPTERS, REFERENCE_DTYPE = "gin/runs/lora.gin", "loop.Trainer.reference_dtype"
_MOST_TRIALS = 6


@dataclasses.dataclass(frozen=True)
class Trial:
    """A plan with some settings changed; no plan where the run does not allow them.

    Attributes:
      bindings: the changes, as they are given on a command line; a gin file is one, too.
      plan: what came of it.
      refused: why there is no plan.
    """

    bindings: tuple[str, ...]
    plan: Plan | None
    refused: str | None = None

    @property
    def name(self) -> str:
        words = (f"--gin_file={b}" if _is_file(b) else f"--gin.{b}" for b in self.bindings)
        settings = " ".join(words) or "as given"
        return settings if self.refused is None else f"{settings}: {self.refused}"

    def as_json(self) -> dict[str, Any]:
        found = {} if self.plan is None else self.plan.as_json()
        return {"settings": list(self.bindings), "refused": self.refused, **found}


def conclusion(trials: Sequence[Trial]) -> str:
    """Which of the trials to take."""
    fitting = [trial for trial in trials if trial.plan is not None and trial.plan.fits]
    if not fitting:
        return "Nothing that was tried fits."
    best = min(fitting, key=lambda trial: trial.plan.step_seconds)
    if len(trials) == 1:
        return "The run fits as given."
    return f"The fastest that fits: {best.name}"


class Planner:
    """Plans the run of a command line, with settings changed.

    Args:
      arguments: of the command line.
      topology: to plan for.
      note: told what is being done.
    """

    def __init__(self, arguments: Namespace, topology: Topology, note: Callable[[str], None]):
        self._arguments = arguments
        self._topology = topology
        self._note = note
        self._devices = topology.devices()
        self._network = None  # the last plan's configuration of its network

    def sweep(self) -> list[Trial]:
        """All sizes of the model axis that are powers of two, and divide the chips of a slice."""
        chips = self._topology.chips // self._topology.islands
        sizes = [2**power for power in range(chips.bit_length()) if chips % 2**power == 0]
        return [self._tried((f"NUM_PARTITIONS={size}",)) for size in sizes]

    def until_it_fits(self) -> list[Trial]:
        """The run as it is given and, while it does not fit, with what would save the most."""
        trials = [self._tried(())]
        if trials[0].refused is not None:
            raise ValueError(trials[0].refused)
        while not self._arguments.as_given and len(trials) < _MOST_TRIALS:
            last = trials[-1]
            if last.plan is None or last.plan.fits:
                break
            remedy = _remedy(last.plan, last.bindings, self._network)
            if remedy is None:
                break
            instead = remedy.split("=")[0]
            if remedy == ADAPTERS:
                instead = REFERENCE_DTYPE  # It has the base's.
            kept = [b for b in last.bindings if b.split("=")[0] != instead]
            trials.append(self._tried((*kept, remedy)))
        return trials

    def _tried(self, bindings: tuple[str, ...]) -> Trial:
        self._note(f"planning {' '.join(bindings) or 'the run as given'}")
        given = self._arguments
        files = [*given.files, *filter(_is_file, bindings)]
        values = [*given.bindings, *(b for b in bindings if not _is_file(b))]
        gin_support.configure(files, values, given.folders)
        try:
            trainer, drawing, scored = described(self._devices)
            model = trainer.model.language_model
            self._network = getattr(getattr(model, "base", model), "config", None)
            work = programs.work_of(trainer, drawing, scored)
        except ValueError as error:
            return Trial(bindings, None, str(error).splitlines()[0])
        mesh = dict(trainer.partitioner.mesh.shape)
        return Trial(bindings, plan(work, self._topology, mesh, trainer.total_steps, self._note))


def _is_file(binding: str) -> bool:
    return binding.endswith(".gin")


def _remedy(found: Plan, tried: Sequence[str], network: Any) -> str | None:
    """The setting that helps most against what a plan has too much of; None if all are spent."""
    names = {binding.split("=")[0] for binding in tried}
    mesh = found.mesh
    more_partitions = f"NUM_PARTITIONS={2 * mesh['model']}" if mesh["data"] > 1 else None
    spread = "partitioning.make_partitioner.parameter_dims=2"
    largest = max(found.costs, key=found.needed, default=None)
    if largest is None or found.resident > 0.8 * found.topology.chip.memory:
        options = [spread if mesh["data"] > 1 else None, more_partitions]
        if "reference" in found.kept:
            wide = network.dtype == "float32"  # else it is in bfloat16 already
            options += [f"{REFERENCE_DTYPE}='bfloat16'" if wide else None, ADAPTERS]
    elif largest == "step":
        micro = next((int(b.split("=")[1]) for b in tried if b.startswith("MICRO_BATCHES")), 1)
        options = [
            f"config.{type(network).__name__}.remat_policy='full'",
            f"MICRO_BATCHES={4 * micro}",
            more_partitions,
        ]
        if micro > 1:
            names.discard("MICRO_BATCHES")
    else:
        options = [more_partitions]
    names -= {"NUM_PARTITIONS"}
    return next((o for o in options if o is not None and o.split("=")[0] not in names), None)


def described(devices: Sequence[Any]) -> tuple[loop.Trainer, programs.Drawing | None, bool]:
    """The configured run on other devices, without its data, checkpoints and judge's parameters.

    Returns:
      The trainer; how it draws completions, if it does; and whether the reference scores the
      data's.

    Raises:
      ValueError: if the run's settings do not fit each other or the devices.
    """
    gin.get_configurable(settings.check_algorithm)()
    with gin.config_scope("train"):
        layout = _bound(settings.batch_stream, "layout")
        stream = programs.made_up(layout, _bound(settings.batch_stream, "batch_size"))
    partitioner = gin.get_configurable(make_partitioner)(devices=devices)
    trainer = _call(loop.Trainer, data=lambda: stream, partitioner=partitioner, model_dir="planned")
    partitioner.check_batch(stream.batch_size, trainer.updates.micro_batches)
    if not issubclass(trainer.feed, OnlineFeed):
        return trainer, None, issubclass(trainer.feed, OfflineFeed)
    judge, lengths = _judge()
    feed = _call(OnlineFeed, run=_run(trainer), prompts=stream, annotator=_Nobody())
    facts = feed.made_from()
    if "candidates" in facts:
        raise ValueError(
            "expected an algorithm that draws the two completions that it learns from, got one "
            f"that chooses among {facts['candidates']}: such a run cannot be planned yet"
        )
    drawing = programs.Drawing(
        length=facts["max_length"],
        betas=facts["betas"],
        against_average=facts["against_average"],
        pieces=facts["pieces"],
        judge=judge,
        judge_lengths=lengths or (layout.features["inputs"], facts["max_length"]),
    )
    return trainer, drawing, False


class _Nobody:
    """Stands where the judge would, with its parameters."""

    name = "nobody"
    antisymmetric = True

    def begin(self, pairs: judges.Pairs):
        raise AssertionError("a plan asks nobody")


def _call(configurable: Callable[..., Any], **arguments: Any) -> Any:
    """Calls what the files configured with these arguments in place of the files' own.

    Gin evaluates the files' even where it is given others: they would load data and parameters.
    """
    with gin.unlock_config():
        for name in arguments:
            if name in gin.get_bindings(configurable, resolve_references=False):
                gin.bind_parameter(
                    f"{configurable.__module__}.{configurable.__name__}.{name}", None
                )
    return gin_support.call(configurable, **arguments)


def _bound(configurable: Callable[..., Any], name: str) -> Any:
    """What the files bind to one argument, made; the others are not."""
    return copy.deepcopy(gin.get_bindings(configurable, resolve_references=False)[name])


def _run(trainer: loop.Trainer) -> Run:
    def nothing():
        raise AssertionError("a plan loads nothing")

    return Run(
        language_model=trainer.model.language_model,
        load_reference=nothing,
        partitioner=trainer.partitioner,
        key=jax.random.key(trainer.random_seed),
        directory=trainer.model_dir,
    )


def _judge() -> tuple[Any, tuple[int, int] | None]:
    """The configured judge's network, if it is a trained one, and the lengths that it reads."""
    chosen = gin.query_parameter("JUDGE/macro.value").configurable.wrapped
    if chosen is judges.trained_judge:
        return _bound(judges.trained_judge, "model"), None
    if chosen is judges.OtherVocabularyJudge:
        own = _bound(judges.OtherVocabularyJudge, "lengths")
        lengths = (layouts.length_of(own, "inputs"), layouts.length_of(own, "targets"))
        return _bound(judges.trained_judge, "model"), lengths
    return None, None
