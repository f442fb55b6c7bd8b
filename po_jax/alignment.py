"""From a checkpoint and comparisons to an aligned policy, in four lines of Python.

    start = Policy.load("flan-t5-small")
    aligned = Alignment(start, frame, model_dir="runs/ipo").run()
    aligned.complete(["summarize: ..."])
    aligned.save("aligned")

It is the code that the gin files configure, with their defaults.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from functools import partial
from typing import Any

from etils import epath
import jax

from po_jax.checkpoints import convert
from po_jax.checkpoints.about import POLICIES
from po_jax.checkpoints.describe import language_model
from po_jax.checkpoints.load import load_parameters, open_checkpoint
from po_jax.data import in_memory, layouts
from po_jax.data.corpus import BatchStream
from po_jax.judges import Judge
from po_jax.language_model import LanguageModel, require_vocabulary
from po_jax.losses import objectives, pairwise
from po_jax.losses.objectives import Objective
from po_jax.models import PolicyModel
from po_jax.partitioning import Partitioner, make_partitioner
from po_jax.sampling import Sampler, Strategy
from po_jax.training.loop import Trainer
from po_jax.training.offline_feed import OfflineFeed
from po_jax.training.online_feed import OnlineFeed, Weight
from po_jax.training.optimizers import Adafactor
from po_jax.types import Schedule
from po_jax.vocabulary import Vocabulary, to_text, to_tokens

IPO = partial(objectives.contrastive, loss=pairwise.ipo, tau=0.1)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A checkpoint that can be asked, trained and saved.

    Attributes:
      checkpoint: its path.
      language_model: its network.
      vocabulary: its token ids.
      described_by: the Hugging Face directory whose config and tokenizer it has; None for none.
      partitioner: the mesh that it runs on.
    """

    checkpoint: str
    language_model: LanguageModel
    vocabulary: Vocabulary
    described_by: str | None
    partitioner: Partitioner = dataclasses.field(default_factory=make_partitioner)

    @classmethod
    def load(
        cls, checkpoint: epath.PathLike, vocabulary: Vocabulary | epath.PathLike | None = None
    ) -> "Policy":
        """Opens a Hugging Face, T5X or po_jax checkpoint of a T5 or T5Gemma.

        Args:
          checkpoint: its directory; nothing is downloaded.
          vocabulary: or the path of its SentencePiece model or tokenizer.json; by default the
            checkpoint's own.

        Raises:
          ValueError: if the path is no checkpoint, has no vocabulary, or one with more ids than it
            has embeddings or another padding or EOS.
        """
        opened = open_checkpoint(checkpoint)
        if vocabulary is None:
            vocabulary = opened.path
        if not isinstance(vocabulary, Vocabulary):
            from po_jax.checkpoints import vocabularies  # needs seqio

            vocabulary = vocabularies.t5(vocabulary)
        model = language_model(opened)
        require_vocabulary(f"{opened.path}", vocabulary, model)
        described_by = str(opened.path) if opened.config is not None else None
        return cls(str(checkpoint), model, vocabulary, described_by)

    def complete(
        self,
        prompts: Sequence[str],
        *,
        strategy: Strategy | None = None,
        prompt_length: int = 512,
        seed: int = 0,
    ) -> list[str]:
        """A completion of each prompt, by default of at most 64 tokens drawn as they are likely."""
        strategy = strategy or Strategy(max_length=64)
        tokens, _ = to_tokens(self.vocabulary, prompts, prompt_length)
        rows = self.partitioner.copies
        batch_size = rows * -(-min(len(prompts), 32) // rows)
        sampler = Sampler(self.language_model, strategy, self.partitioner, batch_size)
        params = load_parameters(
            self.language_model, self.checkpoint, self.partitioner, kinds=POLICIES
        )
        rollout = sampler.draw_all(params, None, tokens, (0.0,), jax.random.key(seed))
        return [to_text(self.vocabulary, row[0]) for row in rollout.completion]

    def save(self, path: epath.PathLike) -> None:
        """Writes a new Hugging Face directory, with the tokenizer where it is known.

        Raises:
          FileExistsError: if there is something already.
        """
        target = convert.Target(format="hugging_face", like=self.described_by)
        convert.plan(self.checkpoint, target).write(path)


@dataclasses.dataclass(frozen=True)
class Alignment:
    """A run of training: offline on comparisons, or online where a judge is given.

    Attributes:
      start: the policy to start from; it stays the reference.
      data: a data frame or dictionaries with `prompt`, `chosen` and `rejected` (and `preference`);
        online, `prompt` will do.
      model_dir: of the run; the same call resumes.
      objective: what is minimised; IPO with tau = 0.1 by default.
      judge: prefers one of two fresh completions; None learns from the data's.
      betas: online, the weight of the reference in the mixture of either completion: (0, 0) is
        online IPO, (beta, beta) IPO-MD.
      lengths: tokens kept of prompts ("inputs") and completions ("targets").
      steps: updates.
      batch_size: pairs of each.
      learning_rate: Adafactor's, relative to the parameters' scale; a number or a schedule.
      random_seed: of the run.
    """

    start: Policy
    data: Any
    model_dir: str
    objective: Objective = IPO
    judge: Judge | None = None
    betas: tuple[Weight, Weight] = (0.0, 0.0)
    lengths: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"inputs": 512, "targets": 64}
    )
    steps: int = 1000
    batch_size: int = 32
    learning_rate: float | Schedule = 1e-4
    random_seed: int = 0

    def run(self) -> Policy:
        """Trains, or goes on, to the end; returns the policy that came of it.

        Raises:
          ValueError: on records that are none, or a batch that the mesh cannot divide.
        """
        trainer = self.trainer()
        trainer.train()
        return dataclasses.replace(self.start, checkpoint=self.model_dir)

    def trainer(self) -> Trainer:
        """The run, to be looked at or changed (`dataclasses.replace`) before it begins."""
        model = self.start.language_model
        if self.judge is None:
            layout: Any = layouts.Comparisons(self.lengths)
            corpus = in_memory.comparisons(self.data, self.start.vocabulary)
            feed: Any = OfflineFeed
        else:
            layout = layouts.Prompts(self.lengths)
            corpus = in_memory.prompts(self.data, self.start.vocabulary)
            strategy = Strategy(self.lengths["targets"])
            feed = partial(OnlineFeed, annotator=self.judge, strategy=strategy, betas=self.betas)
        return Trainer(
            model=PolicyModel(language_model=model, objective=self.objective),
            optimizer=Adafactor(self.learning_rate, model.parameter_axes()),
            feed=feed,
            data=lambda: BatchStream(corpus, layout, self.batch_size, seed=self.random_seed),
            partitioner=self.start.partitioner,
            model_dir=self.model_dir,
            total_steps=self.steps,
            initial_checkpoint_path=self.start.checkpoint,
            random_seed=self.random_seed,
        )
