"""What a checkpoint says of itself beside its arrays: which kind of model it is, its special ids.

The trees of policies and judges are alike, so that nothing else would tell one from the other.
Runs keep it in the metadata of their checkpoints; converted directories have a file of their own.
"""

from collections.abc import Collection, Mapping
import dataclasses
import json
from typing import Any

from etils import epath

from po_jax.checkpoints import json_files
from po_jax.language_model import LanguageModel, SpecialIds

FILE = "po_jax.json"
POLICIES = ("a policy", "an SFT model")  # kinds that answer prompts; the others judge answers


@dataclasses.dataclass(frozen=True)
class AdapterFacts:
    """What a checkpoint that holds an adapter alone says of it.

    Attributes:
      base: path of the checkpoint that is adapted.
      fingerprint: of the base's parameters, as they are stored there; None where it does not say.
      scale: of the product of A and B.
      dtype: that the base's matrices were kept in.
    """

    base: str
    fingerprint: str | None
    scale: float
    dtype: str


@dataclasses.dataclass(frozen=True)
class About:
    """What is known of a checkpoint; None where it does not say.

    Attributes:
      kind: of model, in words, such as "a policy" or "a trained reward model".
      special_ids: of its vocabulary.
      adapter: what the parameters are an adapter of; None where they are all of a model.
      network: what decides its function and no shape of a parameter tells, such as the number of
        heads, by name, as JSON has it.
    """

    kind: str | None = None
    special_ids: SpecialIds | None = None
    adapter: AdapterFacts | None = None
    network: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, model: LanguageModel, kind: str | None = None) -> "About":
        """What a language model's own checkpoint says."""
        return cls(kind, model.special_ids).with_network(model.beyond_shapes)

    def with_network(self, beyond_shapes: Mapping[str, Any]) -> "About":
        """The same of this network; nothing is said of one without such options."""
        network = json.loads(json.dumps(dict(beyond_shapes)))  # lists for tuples
        return dataclasses.replace(self, network=network) if network else self

    def to_json(self) -> dict[str, Any]:
        """As it is saved."""
        content = dataclasses.asdict(self)
        for name in ("adapter", "network"):
            if content[name] is None:
                del content[name]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "About":
        """What was saved; nothing where other programs wrote it."""
        ids, adapter = content.get("special_ids"), content.get("adapter")
        network = content.get("network")
        return cls(
            content.get("kind"),
            SpecialIds(**ids) if isinstance(ids, dict) else None,
            AdapterFacts(**adapter) if isinstance(adapter, dict) else None,
            network if isinstance(network, dict) else None,
        )

    @classmethod
    def read(cls, directory: epath.Path) -> "About":
        """What the directory's file says; nothing where there is none."""
        file = directory / FILE
        return cls.from_json(json_files.read_object(file)) if file.exists() else cls()

    def write(self, directory: epath.Path) -> None:
        """Writes the directory's file, where anything is known."""
        if self != About():
            (directory / FILE).write_text(json.dumps(self.to_json(), indent=1) + "\n")

    def require(self, where: str, kinds: Collection[str | None], model: "About") -> None:
        """Holds what is said against what is wanted; what is not said is taken.

        Args:
          where: the checkpoint, for messages.
          kinds: that will do; empty for any.
          model: whose special ids and network are to read the checkpoint.

        Raises:
          ValueError: if they differ.
        """
        wanted = [kind for kind in kinds if kind is not None]
        if wanted and self.kind is not None and self.kind not in wanted:
            raise ValueError(
                f"{where}: expected the checkpoint of {' or '.join(wanted)}, got that of "
                f"{self.kind}"
            )
        ids = (model.special_ids, self.special_ids)
        if None not in ids and ids[0] != ids[1]:
            raise ValueError(
                f"{where}: expected the language model's {ids[0]}, got {ids[1]} "
                "(its special_ids can be set; a T5's padding is always 0)"
            )
        wants, has = model.network or {}, self.network or {}
        differing = [name for name in wants if name in has and wants[name] != has[name]]
        if differing:
            raise ValueError(
                f"{where}: expected the network that the configuration describes, with "
                f"{_listed(wants, differing)}, got one with {_listed(has, differing)}: no shape "
                "would tell, but it would compute something else"
            )

    def require_base(self, where: str, model: "About") -> None:
        """Holds it against a model that goes on from it.

        Raises:
          ValueError: if one of the two is an adapter of something else.
        """
        if self.adapter != model.adapter:
            raise ValueError(
                f"{where}: expected {model.adapter or 'a whole model'}, got "
                f"{self.adapter or 'a whole model'}"
            )

    def require_start(self, where: str, model: "About") -> None:
        """Holds it against a model that is to start from it: a judge may from any kind.

        Raises:
          ValueError: as `require` does.
        """
        self.require(where, POLICIES if model.kind in POLICIES else (), model)


def _listed(options: Mapping[str, Any], names: Collection[str]) -> str:
    return ", ".join(f"{name} {options[name]}" for name in names)
