"""Every kind of run, small, as one process of one or several makes it.

    MODEL_AXIS=2 python -m tests.distributed.runs FOLDER STEPS NAME [NAME ...]

makes each run in FOLDER/NAME, on a mesh of all devices whose axis "model" is MODEL_AXIS.
"""

from collections.abc import Callable, Mapping
import dataclasses
from functools import cache, partial
import json
import os
from pathlib import Path
import sys

import jax
import optax

from launch import gin_support
from launch import processes as together
from po_jax import processes
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.data import layouts
from po_jax.data.corpus import BatchStream, Corpus
from po_jax.evaluation.completions import Completer
from po_jax.evaluation.labelling import Labelling
from po_jax.evaluation.side_by_side import SideBySide
from po_jax.judges import CallableJudge, Calls, LearnedJudge, PreferenceModel, RewardModel
from po_jax.judges.template import Template
from po_jax.lora import LoRA
from po_jax.losses import objectives
from po_jax.models import PolicyModel, SupervisedModel
from po_jax.partitioning import collect, make_partitioner
from po_jax.sampling import Sampler
from po_jax.t5.language_model import T5LM
from po_jax.training import loop
from po_jax.training.early_stopping import EarlyStopping
from po_jax.training.held_out import JudgeEvaluation, PolicyEvaluation, SupervisedEvaluation
from po_jax.training.offline_feed import DataFeed, OfflineFeed
from po_jax.training.online_feed import OnlineFeed
from tests.training import small_run
from tests.vocabularies import Numbers

# Eight devices can share its heads, its layers' widths and its vocabulary.
MODEL = T5LM(
    dataclasses.replace(
        small_run.MODEL.config, emb_dim=16, num_heads=8, head_dim=3, mlp_dim=24, dropout_rate=0.0
    )
)
RATING = Template(pieces=((20,), (21,)), verdicts=(18, 19))
# The update is smooth in the gradient: an optimiser that divides by its size makes much of the last
# bit of what is nearly 0.
OPTIMIZER = optax.sgd(0.05, momentum=0.9)
PERIODS = {"log_period": 1, "eval_period": 2, "save_period": 2}


@cache
def partitioner():
    """The mesh of all devices."""
    return make_partitioner(int(os.environ["MODEL_AXIS"]))


def prefer_longer(prompt: str, first: str, second: str) -> float:
    """A judge in Python."""
    return 1.0 / (1.0 + 2.0 ** (len(second) - len(first)))


def python_judge() -> CallableJudge:
    return CallableJudge(prefer_longer, Numbers(), calls=Calls(threads=2))


@cache
def parameters(seed: int):
    """Fresh parameters in their places, their outputs far apart.

    Twice the size would be farther, and a network so sharp makes of the last bit of its first step
    more than what two makings may differ by.
    """
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0))
    shardings = partitioner().shardings(shapes, MODEL.parameter_axes())
    init = jax.jit(
        lambda key: jax.tree.map(lambda x: 1.5 * x, MODEL.init(key)), out_shardings=shardings
    )
    return init(jax.random.key(seed))


def learned(model) -> LearnedJudge:
    return LearnedJudge(model, parameters(11), partitioner())


def policy_evaluation(judge):
    def make(run):
        return PolicyEvaluation(
            run,
            prompts=small_run.prompts(),
            strategy=small_run.STRATEGY,
            vocabulary=Numbers(),
            judge=judge,
        )

    return make


class Recorded:
    """A feed whose completions are kept, a line a step."""

    def __init__(self, feed, file: Path):
        self._feed, self._file = feed, file
        self.save = feed.save

    def batch(self, step, state, clock):
        batch, metrics = self._feed.batch(step, state, clock)
        tokens = collect(batch.completion)
        if processes.index() == 0:
            with self._file.open("a") as file:
                file.write(json.dumps(tokens.tolist()) + "\n")
        return batch, metrics


def train(folder: Path, steps: int, feed, data, model, evaluation, **options) -> None:
    small_run.train(
        folder,
        feed,
        data,
        steps,
        model=model,
        partitioner=partitioner(),
        **{"optimizer": OPTIMIZER, **PERIODS, **options},
        updates=loop.Updates(max_gradient_norm=1.0),
        evaluations={"held_out": evaluation},
    )


def sft(folder: Path, steps: int, **options) -> None:
    corpus = small_run.corpus()
    tokens = {"inputs": corpus.tokens["inputs"], "targets": corpus.tokens["completion_1"]}
    corpus = dataclasses.replace(corpus, tokens=tokens)
    data = BatchStream(corpus, layouts.Supervised(small_run.LENGTHS), 8)
    model = SupervisedModel(language_model=MODEL)
    train(folder, steps, DataFeed, data, model, partial(_supervised, model, data), **options)


def stopped_early(folder: Path, steps: int) -> None:
    """Ends at its second evaluation: nothing is gain enough."""
    early = EarlyStopping(metric="held_out/loss", largest=False, patience=1, least_gain=99.0)
    sft(folder, steps, early_stopping=early)


def _supervised(model, data, run):
    return SupervisedEvaluation(run, model=model, examples=data)


def _judging(model, data, run):
    return JudgeEvaluation(run, model=model, comparisons=data)


def reward_model(folder: Path, steps: int) -> None:
    model, data = RewardModel(language_model=MODEL, template=RATING), small_run.comparisons()
    train(folder, steps, DataFeed, data, model, partial(_judging, model, data))


def preference_model(folder: Path, steps: int) -> None:
    model = PreferenceModel(language_model=MODEL, template=small_run.TEMPLATE)
    data = small_run.comparisons()
    train(folder, steps, DataFeed, data, model, partial(_judging, model, data))


def offline_ipo(folder: Path, steps: int) -> None:
    model = PolicyModel(language_model=MODEL, objective=small_run.IPO)
    evaluation = policy_evaluation(python_judge())
    train(folder, steps, OfflineFeed, small_run.comparisons(), model, evaluation)


def online(
    folder: Path, steps: int, judge, objective, betas, language_model=MODEL, **options
) -> None:
    make = partial(OnlineFeed, annotator=judge, strategy=small_run.STRATEGY, betas=betas, pieces=1)

    def feed(run, data):
        return Recorded(make(run, data), folder / "tokens.jsonl")

    model = PolicyModel(language_model=language_model, objective=objective)
    evaluation = policy_evaluation(judge)
    train(folder, steps, feed, small_run.prompts(), model, evaluation, **options)


def ipo_md(folder: Path, steps: int) -> None:
    judge = learned(PreferenceModel(language_model=MODEL, template=small_run.TEMPLATE))
    online(folder, steps, judge, small_run.IPO, (0.25, 0.25))


def ipo_md_of_adapters(folder: Path, steps: int) -> None:
    judge = learned(PreferenceModel(language_model=MODEL, template=small_run.TEMPLATE))
    base = _checkpoints(folder / "starts")["sft"]
    model = LoRA(MODEL, rank=2, alpha=2.0)
    # Of no pair that this seed draws are both completions alike, with a margin of rounding's sign.
    options = {"initial_checkpoint_path": base, "random_seed": 1}
    online(folder, steps, judge, small_run.IPO, (0.25, 0.25), model, **options)


def ipo_md_python(folder: Path, steps: int) -> None:
    online(folder, steps, python_judge(), small_run.IPO, (0.25, 0.25))


def rlhf(folder: Path, steps: int) -> None:
    judge = learned(RewardModel(language_model=MODEL, template=RATING))
    objective = partial(objectives.rlhf, tau=0.1)
    online(folder, steps, judge, objective, (0.0, 0.0))


def _sampler() -> Sampler:
    return Sampler(MODEL, small_run.STRATEGY, partitioner(), batch_size=8)


def _checkpoints(folder: Path) -> dict[str, str]:
    """Two policies on disk."""
    for name, seed in (("sft", 3), ("other", 4)):
        manager = CheckpointManager(folder / name)
        manager.save(1, {"params": parameters(seed)})
        manager.close()
    return {name: str(folder / name) for name in ("sft", "other")}


def _asked() -> BatchStream:
    """Eleven prompts with their texts: the last batch is filled up."""
    corpus: Corpus = small_run.corpus(11)
    texts = [" ".join(map(str, corpus.tokens["inputs"].row(row))) for row in range(11)]
    corpus = dataclasses.replace(corpus, texts={"inputs": texts})
    return BatchStream(corpus, layouts.Prompts(small_run.LENGTHS), 8)


def _keep(folder: Path, found) -> None:
    if processes.index() == 0:
        (folder / "found.json").write_text(json.dumps(found, default=str))


def sample(folder: Path, steps: int) -> None:
    completer = Completer(
        sampler=_sampler(),
        vocabulary=Numbers(),
        prompt_length=6,
        checkpoint=_checkpoints(folder)["sft"],
        samples=2,
    )
    drawn = completer.of_texts(["5 6 7", "8 9", "10 11 12 13"])
    _keep(folder, [[dataclasses.asdict(one) for one in group] for group in drawn])


def label(folder: Path, steps: int) -> None:
    labelling = Labelling(
        sampler=_sampler(),
        checkpoint=_checkpoints(folder)["sft"],
        prompts=_asked(),
        judge=python_judge(),
        vocabulary=Numbers(),
        samples=3,
    )
    records = list(labelling.records())
    _keep(folder, {"records": records, "questions": labelling.judge.record().questions})


def evaluate(folder: Path, steps: int) -> None:
    compared = SideBySide(
        sampler=_sampler(),
        policies=_checkpoints(folder),
        reference="sft",
        prompts=_asked(),
        judge=python_judge(),
        vocabulary=Numbers(),
    )
    report = compared.report()
    for changing in ("seconds", "calls"):
        report["judge"]["calls"].pop(changing)
    report.pop("config")
    _keep(folder, report)


RUNS = {
    run.__name__: run
    for run in (sft, stopped_early, reward_model, preference_model, offline_ipo)
    + (ipo_md, ipo_md_of_adapters, ipo_md_python, rlhf, sample, label, evaluate)
}


def main(runs: Mapping[str, Callable[[Path, int], None]]) -> int:
    """Makes the runs that the command line names; returns the exit status."""
    where, steps, *names = sys.argv[1:]

    def make() -> None:
        together.start()
        for name in names:
            folder = Path(where) / name
            folder.mkdir(parents=True, exist_ok=True)
            runs[name](folder, int(steps))

    return together.run(lambda: gin_support.exit_status(make))


if __name__ == "__main__":
    sys.exit(main(RUNS))
