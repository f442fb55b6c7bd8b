"""A T5 trained through the real loop on a game whose answer is known exactly.

Two prompts, each with the completions of at most two tokens. The reference is fitted to a random
distribution over the 13 of them that do not hold token 0, and all but never says the others: T5
begins its decoder with token 0 and has no absolute positions, so after the word 0 it could only
repeat what it says at the beginning, and no such T5 could play the equilibrium.
"""

from collections.abc import Callable
import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
import numpy as np
import optax

from po_jax.checkpoints.manager import CheckpointManager
from po_jax.data import layouts
from po_jax.data.corpus import BatchStream, Corpus, Ragged
from po_jax.game import preferences
from po_jax.game.autoregressive import all_completions, token_mixture
from po_jax.game.equilibrium import (
    Game,
    LogPolicy,
    best_response,
    stationary_point,
    total_variation,
)
from po_jax.game.language import Player, TableJudge
from po_jax.losses import objectives, pairwise
from po_jax.models import PolicyModel
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Strategy
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training import loop, optimizers, schedules
from po_jax.training.offline_feed import OfflineFeed
from po_jax.training.online_feed import OnlineFeed
from po_jax.training.state import TrainState

TAU = 0.3
TREE = all_completions(vocab_size=5, max_length=2)
TOKENS, MASK = np.asarray(TREE.tokens), np.asarray(TREE.mask)
ACTIONS = len(TOKENS)
SPEAKABLE = np.flatnonzero(~((TOKENS == 0) & MASK).any(axis=-1))
MODEL = T5LM(
    T5Config(
        vocab_size=5,
        emb_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=32,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dropout_rate=0.0,
    )
)
PROMPTS = np.array([[2, 3, 1], [3, 4, 1]], np.int32)
PLAYERS = [Player(MODEL, jnp.asarray(prompt), TREE) for prompt in PROMPTS]
LENGTHS = {"inputs": PROMPTS.shape[1], "targets": TOKENS.shape[1]}

# Every completion beats half of the others, in a circle that each prompt enters elsewhere.
CYCLE = preferences.cyclic(ACTIONS)
CYCLIC = [CYCLE, np.roll(CYCLE, 5, axis=(0, 1))]
REWARDS = [np.random.default_rng(seed).uniform(-1.0, 1.0, ACTIONS) for seed in (10, 11)]
TRANSITIVE = [preferences.bradley_terry(reward) for reward in REWARDS]


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """What a run needs to know, and where it should end.

    Attributes:
      objective: of the pairs.
      answer: the exact log pi, in float64, of a game.
      betas: weights of the reference in the two completions; None for offline data.
      transitive: judged by Bradley-Terry rewards, not around the cycle.
    """

    objective: objectives.Objective
    answer: Callable[[Game], LogPolicy]
    betas: tuple[float, float] | None = (0.0, 0.0)
    transitive: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How near a run came, the worst of the prompts.

    An offline run is compared on the completions that its data shows, given that it says one of
    them: of the others theory promises nothing.

    Attributes:
      start: total variation of the reference from the exact answer.
      end: the same of the trained policy.
      unshown: what the trained policy says of the completions with token 0.
    """

    start: float
    end: float
    unshown: float


def against(beta: float) -> Callable[[Game], LogPolicy]:
    """Where the mixture algorithms stop when the mixture is the sampler's, token by token."""

    def answer(game: Game) -> LogPolicy:
        mixed = Partial(
            token_mixture, TREE, log_reference=game.log_reference, beta=jnp.asarray(beta)
        )
        return stationary_point(game, mixed).log_policy

    return answer


def rlhf_solution(game: Game) -> LogPolicy:
    """mu exp(r / tau)."""
    return jax.nn.log_softmax(game.log_reference + game.reward / game.tau)


def response_to_data(game: Game) -> LogPolicy:
    """mu exp(P(. > nu) / tau), nu uniform over the pairs of the data set."""
    shown = np.full(ACTIONS, -np.inf)
    shown[SPEAKABLE] = -np.log(len(SPEAKABLE))
    return best_response(game, jnp.asarray(shown))


def _contrastive(loss: Callable) -> objectives.Objective:
    return partial(objectives.contrastive, loss=loss, tau=TAU)


_IPO, _DPO = _contrastive(pairwise.ipo), _contrastive(pairwise.dpo)
_NASH_MD = partial(objectives.nash_md, tau=TAU)
_RLHF = partial(objectives.rlhf, tau=TAU)
ALGORITHMS = {
    "online IPO": Algorithm(_IPO, against(0.0)),
    "IPO-MD, beta 0.5": Algorithm(_IPO, against(0.5), (0.5, 0.5)),
    "Nash-MD-PG, beta 0.5": Algorithm(_NASH_MD, against(0.5), (0.0, 0.5)),
    "self-play PG": Algorithm(_NASH_MD, against(0.0)),
    "best response to mu": Algorithm(_NASH_MD, against(1.0), (0.0, 1.0)),
    "offline IPO": Algorithm(_IPO, response_to_data, None),
    "online DPO": Algorithm(_DPO, rlhf_solution, transitive=True),
    "RLHF": Algorithm(_RLHF, rlhf_solution, transitive=True),
    "offline DPO": Algorithm(_DPO, rlhf_solution, None, transitive=True),
}


def wanted_reference() -> np.ndarray:
    """What the reference should say: a random distribution over the completions without token 0."""
    wanted = np.full((len(PLAYERS), ACTIONS), 1e-5)
    for seed, row in enumerate(wanted):
        row[SPEAKABLE] = np.random.default_rng(seed).dirichlet(2.0 * np.ones(len(SPEAKABLE)))
    return wanted / wanted.sum(axis=-1, keepdims=True)


def fit_reference(folder: Path, steps: int = 400) -> str:
    """A checkpoint of a T5 fitted to `wanted_reference` by exact cross-entropy."""
    targets = jnp.asarray(wanted_reference(), jnp.float32)
    optimizer = optimizers.adamw(_falling(0.01, steps))

    def loss(params):
        scores = [player.log_policy(params) for player in PLAYERS]
        return -jnp.mean(jnp.sum(targets * jnp.stack(scores), axis=-1))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def fit(params):
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
        return params

    params = fit(jax.jit(MODEL.init)(jax.random.key(0)))
    manager = CheckpointManager(folder)
    manager.save(0, TrainState.create(params, optax.identity()))
    manager.close()
    return str(folder)


def train(
    algorithm: Algorithm,
    reference: str,
    directory: Path,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> Outcome:
    """Trains with Adam, at a rate that falls to 0, and measures.

    Args:
      algorithm: which.
      reference: checkpoint to start from.
      directory: of the run.
      steps: how many.
      batch_size: pairs a step, over both prompts.
      learning_rate: at the beginning.
    """
    seen = {}

    def feed(run, data):
        seen["reference"] = jax.tree.map(np.asarray, run.reference)
        if algorithm.betas is None:
            return OfflineFeed(run, data)
        return OnlineFeed(
            run,
            data,
            annotator=TableJudge(PLAYERS, _preferences(algorithm), REWARDS),
            strategy=Strategy(max_length=LENGTHS["targets"]),
            betas=algorithm.betas,
        )

    layout = layouts.Prompts if algorithm.betas is not None else layouts.Comparisons
    trainer = loop.Trainer(
        model=PolicyModel(language_model=MODEL, objective=algorithm.objective),
        optimizer=optimizers.adamw(_falling(learning_rate, steps), MODEL.parameter_axes()),
        feed=feed,
        data=lambda: BatchStream(_pairs(_preferences(algorithm)), layout(LENGTHS), batch_size),
        partitioner=make_partitioner(devices=jax.devices()[:1]),
        model_dir=str(directory),
        total_steps=steps,
        initial_checkpoint_path=reference,
        log_period=50,
        save_period=steps,
    )
    state = trainer.train()
    measured = [
        _measure(algorithm, i, seen["reference"], state.params) for i in range(len(PLAYERS))
    ]
    return Outcome(*np.max(measured, axis=0).tolist())


def _falling(learning_rate: float, steps: int) -> schedules.Schedule:
    return schedules.LearningRate(
        "constant * cosine_decay",
        base_learning_rate=learning_rate,
        warmup_steps=0,
        steps_per_cycle=steps,
    )


def _preferences(algorithm: Algorithm) -> list[np.ndarray]:
    return TRANSITIVE if algorithm.transitive else CYCLIC


def _pairs(tables: list[np.ndarray]) -> Corpus:
    """Each pair of speakable completions once for each prompt, with its soft label."""
    first, second = SPEAKABLE[np.stack(np.triu_indices(len(SPEAKABLE), k=1))]
    count = len(first)
    lengths = MASK.sum(axis=-1)

    def column(rows: np.ndarray) -> Ragged:
        return Ragged(TOKENS[rows][MASK[rows]], lengths[rows])

    prompts = np.repeat(PROMPTS, count, axis=0)
    return Corpus(
        tokens={
            "inputs": Ragged(prompts.ravel(), np.full(len(prompts), prompts.shape[1])),
            "completion_1": column(np.tile(first, len(PROMPTS))),
            "completion_2": column(np.tile(second, len(PROMPTS))),
        },
        texts={},
        sizes=[len(prompts)],
        rates=[1.0],
        preference=np.concatenate([table[first, second] for table in tables]).astype(np.float32),
    )


def _measure(algorithm, i, reference, params) -> tuple[float, float, float]:
    shown = SPEAKABLE if algorithm.betas is None else np.arange(ACTIONS)

    def given_shown(log_policy: LogPolicy) -> LogPolicy:
        return jax.nn.log_softmax(log_policy[shown])

    with jax.enable_x64(True):
        game = PLAYERS[i].game(reference, _preferences(algorithm)[i], TAU, REWARDS[i])
        exact = given_shown(algorithm.answer(game))
        policy = PLAYERS[i].probabilities(params)
        return (
            float(total_variation(given_shown(game.log_reference), exact)),
            float(total_variation(given_shown(jnp.log(jnp.asarray(policy))), exact)),
            1.0 - float(policy[SPEAKABLE].sum()),
        )
