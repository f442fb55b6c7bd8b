"""Hugging Face's config.json of a T5, to and from `T5Config`."""

from collections.abc import Mapping
import json
from typing import Any

from etils import epath

from po_jax.t5.config import T5Config

CONFIG = "config.json"

FAMILIES = {  # By model_type. ByT5, Flan and UL2 are of type t5.
    "t5": "T5ForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
    "umt5": "UMT5ForConditionalGeneration",
}
ACTIVATIONS = {
    "relu": ("relu",),
    "gated-relu": ("relu", "linear"),
    "gated-gelu": ("gelu", "linear"),  # The tanh approximation, in T5X as in `transformers`.
    "gated-silu": ("silu", "linear"),
}
EPSILON = 1e-6
_SIZES = {
    "vocab_size": "vocab_size",
    "emb_dim": "d_model",
    "num_heads": "num_heads",
    "head_dim": "d_kv",
    "mlp_dim": "d_ff",
    "num_encoder_layers": "num_layers",
    "num_decoder_layers": "num_decoder_layers",
    "relative_buckets": "relative_attention_num_buckets",
    "relative_max_distance": "relative_attention_max_distance",
    "dropout_rate": "dropout_rate",
}
_OPTIONAL = {  # What old files leave out.
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
}


def read(directory: epath.Path, *, has_head: bool) -> tuple[T5Config, str]:
    """The network of named layers that a directory describes, and its family.

    Args:
      directory: with config.json.
      has_head: whether its weights have an output head of their own.

    Raises:
      ValueError: naming the option that is absent, unknown or contradicts another.
    """
    file = directory / CONFIG
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON, got: {error}") from error
    family = content.get("model_type")
    if family not in FAMILIES:
        raise ValueError(
            f"{file}: expected a model_type of the T5 families {sorted(FAMILIES)}, got {family!r}."
        )
    content = {**_OPTIONAL, "num_decoder_layers": content.get("num_layers")} | {
        key: value for key, value in content.items() if value is not None
    }
    absent = [key for key in (*_SIZES.values(), "feed_forward_proj") if content.get(key) is None]
    if absent:
        raise ValueError(f"{file}: expected the options {absent}, got none.")
    for key, allowed in (
        ("feed_forward_proj", list(ACTIVATIONS)),
        ("layer_norm_epsilon", [EPSILON]),
    ):
        if content.get(key, allowed[0]) not in allowed:
            raise ValueError(f"{file}: expected {key} in {allowed}, got {content[key]!r}.")
    config = T5Config(
        **{ours: content[theirs] for ours, theirs in _SIZES.items()},
        mlp_activations=ACTIVATIONS[content["feed_forward_proj"]],
        logits_via_embedding=_tied(content, family, has_head=has_head),
        shared_relative_bias=family != "umt5",
    )
    return config, family


def _tied(content: Mapping[str, Any], family: str, *, has_head: bool) -> bool:
    """Whether the embedding is the output head, and scaled as in T5 1.0.

    `tie_word_embeddings` meant both in `transformers` before 5; from 5 on it is always true, and
    a T5 that must not scale says so in `scale_decoder_outputs`. Multilingual T5s have a head of
    their own; one without it does not scale in mT5, and does in umT5.
    """
    if family == "mt5":
        return False
    if family == "umt5":
        return not has_head
    return content.get(
        "scale_decoder_outputs", content.get("tie_word_embeddings", True) is not False
    )


def to_json(config: T5Config, *, family: str, dtype: str) -> dict[str, Any]:
    """The content of config.json; see `hugging_face.write`."""
    if family not in FAMILIES:
        raise ValueError(f"family: expected one of {sorted(FAMILIES)}, got {family!r}.")
    shared = family != "umt5"
    if config.shared_relative_bias != shared:
        raise ValueError(
            f"family {family}: expected a network with shared_relative_bias={shared}, got "
            f"{config.shared_relative_bias}."
        )
    feed_forward = {value: key for key, value in ACTIVATIONS.items()}.get(config.mlp_activations)
    if feed_forward is None:
        raise ValueError(
            f"family {family}: expected mlp_activations in {list(ACTIVATIONS.values())}, got "
            f"{config.mlp_activations}."
        )
    if family == "mt5" and config.logits_via_embedding:
        raise ValueError("family mt5: expected an output head of its own, got the embedding's.")
    activation = config.mlp_activations[0]
    return {
        **{theirs: getattr(config, ours) for ours, theirs in _SIZES.items()},
        "architectures": [FAMILIES[family]],
        "decoder_start_token_id": 0,
        "dense_act_fn": "gelu_new" if activation == "gelu" else activation,
        "eos_token_id": 1,
        "feed_forward_proj": feed_forward,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "is_gated_act": len(config.mlp_activations) > 1,
        "layer_norm_epsilon": EPSILON,
        "model_type": family,
        "pad_token_id": 0,
        "tie_word_embeddings": config.logits_via_embedding,
        "torch_dtype": dtype,
        "use_cache": True,
    }


def generation_json() -> dict[str, Any]:
    """The content of generation_config.json: T5's special tokens."""
    return {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
