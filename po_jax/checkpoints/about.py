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
from po_jax.language_model import SpecialIds

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
    """

    kind: str | None = None
    special_ids: SpecialIds | None = None
    adapter: AdapterFacts | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is saved."""
        content = dataclasses.asdict(self)
        if self.adapter is None:
            del content["adapter"]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "About":
        """What was saved; nothing where other programs wrote it."""
        ids, adapter = content.get("special_ids"), content.get("adapter")
        return cls(
            content.get("kind"),
            SpecialIds(**ids) if isinstance(ids, dict) else None,
            AdapterFacts(**adapter) if isinstance(adapter, dict) else None,
        )

    @classmethod
    def read(cls, directory: epath.Path) -> "About":
        """What the directory's file says; nothing where there is none."""
        file = directory / FILE
        return cls.from_json(json_files.read_object(file)) if file.exists() else cls()

    def write(self, directory: epath.Path) -> None:
        """Writes the directory's file, where the kind is known."""
        if self.kind is not None:
            (directory / FILE).write_text(json.dumps(self.to_json(), indent=1) + "\n")

    def require(
        self, where: str, kinds: Collection[str | None], special_ids: SpecialIds | None
    ) -> None:
        """Holds what is said against what is wanted; what is not said is taken.

        Args:
          where: the checkpoint, for messages.
          kinds: that will do; empty for any.
          special_ids: of the language model that is to read the checkpoint.

        Raises:
          ValueError: if they differ.
        """
        wanted = [kind for kind in kinds if kind is not None]
        if wanted and self.kind is not None and self.kind not in wanted:
            raise ValueError(
                f"{where}: expected the checkpoint of {' or '.join(wanted)}, got that of "
                f"{self.kind}"
            )
        if None not in (self.special_ids, special_ids) and self.special_ids != special_ids:
            raise ValueError(
                f"{where}: expected the language model's {special_ids}, got {self.special_ids} "
                "(its special_ids can be set; a T5's padding is always 0)"
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
        self.require(where, POLICIES if model.kind in POLICIES else (), model.special_ids)
