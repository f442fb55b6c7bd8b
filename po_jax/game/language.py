"""A language model as a player: its completions listed, its pairs judged by a table."""

from collections.abc import Callable, Sequence

import flax
import jax
from jaxtyping import Array, Float, Int
import numpy as np

from po_jax.game.autoregressive import Tree
from po_jax.game.equilibrium import Game, LogPolicy, make_game
from po_jax.judges import Judgement, Pairs
from po_jax.language_model import LanguageModel
from po_jax.logprobs import sequence_logprob
from po_jax.partitioning import collect
from po_jax.types import Params


@flax.struct.dataclass
class Player:
    """A language model facing one prompt: parameters to log P of every completion.

    Attributes:
      model: any language model with `score`; static.
      prompt: token ids.
      tree: the completions; its length is the sampler's `max_length`.
    """

    model: LanguageModel = flax.struct.field(pytree_node=False)
    prompt: Int[Array, " prompt"]
    tree: Tree

    def log_policy(self, params: Params) -> LogPolicy:
        """log pi(y | prompt) of every completion, float32; call it outside float64."""
        mask = self.tree.mask[None]
        logprobs = self.model.score(params, self.prompt[None], self.tree.tokens[None], mask)
        return sequence_logprob(logprobs, mask)[0]

    def probabilities(self, params: Params) -> Float[np.ndarray, " completions"]:
        """pi(y | prompt) of every completion, normalised to float64's last digit."""
        with jax.enable_x64(False):
            probabilities = np.exp(np.asarray(_log_policy(self, params), np.float64))
        return probabilities / probabilities.sum()

    def game(
        self,
        reference: Params,
        preference: Float[np.ndarray, "completions completions"],
        tau: float,
        reward: Float[np.ndarray, " completions"] | None = None,
    ) -> Game:
        """The game over its completions whose reference is the model with these parameters."""
        return make_game(preference, self.probabilities(reference), tau, reward)


@jax.jit
def _log_policy(player: Player, params: Params) -> LogPolicy:
    return player.log_policy(params)


class TableJudge:
    """Judges completions by tables: exact, and the same in every order.

    Args:
      players: one for each prompt that may come, over the same completions.
      preferences: P(row > column) for each player.
      rewards: of each completion, for each player; or none.
    """

    name = "a table"
    antisymmetric = True

    def __init__(
        self,
        players: Sequence[Player],
        preferences: Sequence[Float[np.ndarray, "completions completions"]],
        rewards: Sequence[Float[np.ndarray, " completions"]] | None = None,
    ):
        self._prompts = np.stack([np.asarray(player.prompt) for player in players])
        tree = players[0].tree
        self._completions = _with_lengths(np.asarray(tree.tokens), np.asarray(tree.mask))
        self._preference = np.stack(preferences)
        self._reward = None if rewards is None else np.stack(rewards)

    def begin(self, pairs: Pairs) -> Callable[[], Judgement]:
        """Looks the pairs up once they are there.

        Raises:
          ValueError: when answering, on a prompt or a completion that is in no table.
        """

        def finish() -> Judgement:
            prompt, completion, mask = collect((pairs.prompt, pairs.completion, pairs.mask))
            table = _position(prompt, self._prompts, "prompt")
            asked = _with_lengths(completion, mask)
            first, second = _position(asked, self._completions, "completion").T
            preference = self._preference[table, first, second].astype(np.float32)
            if self._reward is None:
                return Judgement(preference=preference)
            reward = np.stack([self._reward[table, first], self._reward[table, second]], axis=1)
            return Judgement(preference=preference, reward=reward.astype(np.float32))

        return finish


def _with_lengths(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Tokens and, as text may hold the padding's id, the length."""
    length = mask.sum(axis=-1, keepdims=True)
    return np.concatenate([np.where(mask, tokens, 0), length], axis=-1)


def _position(rows: np.ndarray, table: np.ndarray, what: str) -> np.ndarray:
    equal = (rows[..., None, :] == table).all(axis=-1)
    if not equal.any(axis=-1).all():
        unknown = rows[~equal.any(axis=-1)][0]
        raise ValueError(f"TableJudge: expected a {what} of its tables, got {unknown}")
    return equal.argmax(axis=-1)
