"""Who says P(y1 > y2 | x): trained T5s, Python functions, ROUGE."""

from po_jax.judges.models import PreferenceModel, RewardModel

__all__ = ["PreferenceModel", "RewardModel"]
