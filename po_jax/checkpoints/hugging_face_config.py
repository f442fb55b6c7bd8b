"""Hugging Face's config.json of a T5, to and from `T5Config`; T5Gemmas' have files of their own."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from po_jax.checkpoints import hugging_face_t5gemma, hugging_face_t5gemma2, json_files
from po_jax.language_model import SpecialIds
from po_jax.t5.config import T5Config
from po_jax.t5gemma.config import T5Gemma2Config, T5GemmaConfig

CONFIG = "config.json"

FAMILIES = {  # By model_type. ByT5, Flan and UL2 are of type t5.
    "t5": "T5ForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
    "umt5": "UMT5ForConditionalGeneration",
    hugging_face_t5gemma.FAMILY: "T5GemmaForConditionalGeneration",
    hugging_face_t5gemma2.FAMILY: "T5Gemma2ForConditionalGeneration",
}
# By the type of their network; all other families are T5s.
GEMMAS = {T5GemmaConfig: hugging_face_t5gemma, T5Gemma2Config: hugging_face_t5gemma2}
_GEMMA_FAMILIES = {module.FAMILY: module for module in GEMMAS.values()}
Config = T5Config | T5GemmaConfig
ACTIVATIONS = {
    "relu": ("relu",),
    "gated-relu": ("relu", "linear"),
    "gated-gelu": ("gelu", "linear"),  # The tanh approximation, in T5X as in `transformers`.
    "gated-silu": ("silu", "linear"),
}
# Until 2020 files said nothing of it: T5 was 1.0, and mT5 was gated from its first day.
_UNSAID_ACTIVATION = {"t5": "relu", "mt5": "gated-gelu", "umt5": "gated-gelu"}
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
_SPECIAL_IDS = {
    "pad": "pad_token_id",
    "eos": "eos_token_id",
    "start": "decoder_start_token_id",
}
_OPTIONAL = {  # What old files leave out.
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
}


def read(directory: epath.Path, *, has_head: bool) -> tuple[Config, str]:
    """The network of named layers that a directory describes, and its family.

    Args:
      directory: with config.json.
      has_head: whether its weights have an output head of their own.

    Raises:
      ValueError: naming the option that is absent, unknown or contradicts another.
    """
    file = directory / CONFIG
    content = json_files.read_object(file)
    family = content.get("model_type")
    if family not in list(FAMILIES):
        raise ValueError(
            f"{file}: expected a model_type of the T5 families {sorted(FAMILIES)}, got {family!r}."
        )
    if family in _GEMMA_FAMILIES:
        return _GEMMA_FAMILIES[family].read(content, file), family
    return _read_t5(content, file, family, has_head=has_head), family


def _read_t5(
    content: Mapping[str, Any], file: epath.Path, family: str, *, has_head: bool
) -> T5Config:
    unsaid = {
        "num_decoder_layers": content.get("num_layers"),
        "feed_forward_proj": _UNSAID_ACTIVATION[family],
    }
    content = {**_OPTIONAL, **unsaid} | {
        key: value for key, value in content.items() if value is not None
    }
    absent = [key for key in _SIZES.values() if content.get(key) is None]
    if absent:
        raise ValueError(f"{file}: expected the options {absent}, got none.")
    for key in _SIZES.values():
        wanted = (int, float) if key == "dropout_rate" else (int,)
        if type(content[key]) not in wanted:
            raise ValueError(f"{file}: expected {key} to be a number, got {content[key]!r}.")
    for key, allowed in (
        ("feed_forward_proj", list(ACTIVATIONS)),
        ("layer_norm_epsilon", [EPSILON]),
    ):
        if content.get(key, allowed[0]) not in allowed:
            raise ValueError(f"{file}: expected {key} in {allowed}, got {content[key]!r}.")
    try:
        return T5Config(
            **{ours: content[theirs] for ours, theirs in _SIZES.items()},
            mlp_activations=ACTIVATIONS[content["feed_forward_proj"]],
            logits_via_embedding=_tied(content, family, has_head=has_head),
            shared_relative_bias=family != "umt5",
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def special_ids(directory: epath.Path) -> SpecialIds:
    """Those of a directory; a T5's own where a T5 does not say.

    Raises:
      ValueError: if one is no token's id.
    """
    content = json_files.read_object(directory / CONFIG)
    if content.get("model_type") in _GEMMA_FAMILIES:
        return hugging_face_t5gemma.special_ids(content, directory / CONFIG)
    found = {ours: content.get(theirs) for ours, theirs in _SPECIAL_IDS.items()}
    wrong = [id for id in found.values() if id is not None and (type(id) is not int or id < 0)]
    if wrong:
        raise ValueError(
            f"{directory / CONFIG}: expected {list(_SPECIAL_IDS.values())} to be ids, got {wrong}."
        )
    given = {name: id for name, id in found.items() if id is not None}
    return SpecialIds(**{"start": given.get("pad", 0), **given})


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


def to_json(config: Config, *, family: str, dtype: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.json; see `hugging_face.write`.

    Args:
      config: the network.
      family: `model_type`.
      dtype: of the parameters.
      kept: another config.json, whose options stay where the network does not determine them.
    """
    if family not in FAMILIES:
        raise ValueError(f"family: expected one of {sorted(FAMILIES)}, got {family!r}.")
    gemma = GEMMAS.get(type(config))
    if gemma is not _GEMMA_FAMILIES.get(family):
        raise ValueError(
            f"family {family}: expected a network of it, got a {type(config).__name__}."
        )
    if gemma is not None:
        return gemma.to_json(config, dtype=dtype, kept=kept)
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
    described = {
        **{theirs: getattr(config, ours) for ours, theirs in _SIZES.items()},
        "dense_act_fn": "gelu_new" if activation == "gelu" else activation,
        "feed_forward_proj": feed_forward,
        "is_gated_act": len(config.mlp_activations) > 1,
        "layer_norm_epsilon": EPSILON,
        "model_type": family,
        "tie_word_embeddings": config.logits_via_embedding,
        "torch_dtype": dtype,
    }
    if "dtype" in kept:  # The name of `transformers` 5.
        described["dtype"] = dtype
    if "scale_decoder_outputs" in kept and family == "t5":
        described["scale_decoder_outputs"] = config.logits_via_embedding
    if kept.get("model_type") != family:
        described["architectures"] = [FAMILIES[family]]
    usual = {
        "architectures": [FAMILIES[family]],
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "use_cache": True,
        **special_ids_json(SpecialIds()),
    }
    return {**usual, **kept, **described}


def special_ids_json(ids: SpecialIds) -> dict[str, int]:
    """Special ids by Hugging Face's names; all that generation_config.json must hold."""
    return {theirs: getattr(ids, ours) for ours, theirs in _SPECIAL_IDS.items()}
