"""Hugging Face's config.json and names of a T5Gemma 2's text part, to and from `T5Gemma2Config`.

A directory of a T5Gemma 2 holds a vision tower as well, which the network here has not. It is not
read; written, a directory has that of the one that it is like.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from po_jax.checkpoints.hugging_face_t5gemma import (
    ENCODER_ATTENTION,
    FIXED,
    HEAD,
    MLP,
    SELF_ATTENTION,
    SIZES,
    check,
    dtype_json,
    ids_to_json,
    number,
    shape_json,
    sliding_layers,
    sublayer_names,
)
from po_jax.checkpoints.leaves import Leaves
from po_jax.t5gemma.config import StackConfig, T5Gemma2Config

FAMILY = "t5gemma2"
_EMBEDDING = "model.encoder.embed_tokens"
COPIES = {
    HEAD: f"{_EMBEDDING}.weight",
    "model.decoder.embed_tokens.weight": f"{_EMBEDDING}.weight",
    "model.decoder.embed_tokens.eoi_embedding": f"{_EMBEDDING}.eoi_embedding",
}
_VISION = ("model.encoder.vision_tower.", "model.encoder.multi_modal_projector.")
_SUBLAYERS = {"encoder": (ENCODER_ATTENTION, MLP), "decoder": (SELF_ATTENTION, MLP)}
_HEAD_NORMS = {"query_norm": "q_norm", "key_norm": "k_norm"}
_FIXED = {**FIXED, "attn_logit_softcapping": None}
_UNSAID = {"rope_scaling": None, "use_bidirectional_attention": False}  # if they are so
_ROPE = {  # An older name of each base, and what a config that says nothing of it means.
    "sliding_attention": ("rope_local_base_freq", 10_000.0),
    "full_attention": ("rope_theta", 1_000_000.0),
}
_END_OF_IMAGE = 256_000
_EVERY_SIXTH = 6  # layer does not slide.


def names(config: T5Gemma2Config) -> dict[str, str]:
    """Hugging Face's name of every parameter of the network of named layers, by our name."""
    result = {
        "token_embedder/embedding": f"{_EMBEDDING}.weight",
        "token_embedder/image_end": f"{_EMBEDDING}.eoi_embedding",
    }
    for stack, sublayers in _SUBLAYERS.items():
        result[f"{stack}/{stack}_norm/scale"] = f"model.{stack}.norm.weight"
        for i in range(getattr(config, stack).num_layers):
            layer, their_layer = f"{stack}/layers_{i}", f"model.{stack}.layers.{i}"
            for sublayer in sublayers:
                result |= sublayer_names(layer, their_layer, sublayer)
            attention, _, theirs, _ = sublayers[0]
            for norm, their_norm in _HEAD_NORMS.items():
                result[f"{layer}/{attention}/{norm}/scale"] = (
                    f"{their_layer}.{theirs}.{their_norm}.weight"
                )
    return result


def vision(tensors: Leaves) -> Leaves:
    """Of a directory's tensors those that are not the text part's."""
    return {name: leaf for name, leaf in tensors.items() if name.startswith(_VISION)}


def read(content: Mapping[str, Any], file: epath.Path) -> T5Gemma2Config:
    """The network of named layers that a config.json describes, without the vision tower.

    Raises:
      ValueError: naming the option that is absent, unknown or contradicts another.
    """
    encoder = content["encoder"] if isinstance(content.get("encoder"), dict) else {}
    stacks = {"encoder.text_config": encoder.get("text_config"), "decoder": content.get("decoder")}
    try:
        vocab_size = check(content, stacks, _FIXED | _UNSAID)
        decoder = stacks["decoder"]
        cap = decoder.get("final_logit_softcapping")
        end_of_image = encoder.get("eoi_token_index", _END_OF_IMAGE)
        if type(end_of_image) is not int:
            raise ValueError(f"expected eoi_token_index to be an id, got {end_of_image!r}.")
        return T5Gemma2Config(
            vocab_size=vocab_size,
            encoder=_read_stack(stacks["encoder.text_config"], "encoder.text_config"),
            decoder=_read_stack(decoder, "decoder"),
            final_softcap=None if cap is None else number(decoder, "final_logit_softcapping", 0.0),
            dropout_rate=number(content, "dropout_rate", 0.0),
            end_of_image=end_of_image,
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _read_stack(content: Mapping[str, Any], name: str) -> StackConfig:
    said = content.get("rope_parameters") or {}
    rope = {kind: said.get(kind) or {} for kind in _ROPE}
    types = {kind: rope[kind].get("rope_type", "default") for kind in _ROPE}
    theta = {
        kind: number(rope[kind], "rope_theta", content.get(older, unsaid))
        for kind, (older, unsaid) in _ROPE.items()
    }
    linear = types["full_attention"] == "linear"
    if types["sliding_attention"] != "default" or not (
        linear or types["full_attention"] == "default"
    ):
        raise ValueError(
            f"expected {name} to have plain rotary positions, or divided ones (linear) where it "
            f"does not slide, got {said}."
        )
    sliding = sliding_layers(content, name)
    if sliding is None:
        every = content.get("sliding_window_pattern", _EVERY_SIXTH)
        sliding = [bool((i + 1) % every) for i in range(content["num_hidden_layers"])]
    return StackConfig(
        **{ours: content[theirs] for ours, theirs in SIZES.items()},
        sliding_layers=sliding,
        attention_softcap=None,
        rope_theta=theta["sliding_attention"],
        full_rope_theta=theta["full_attention"],
        full_rope_factor=number(rope["full_attention"], "factor", 1.0) if linear else 1.0,
    )


def to_json(config: T5Gemma2Config, *, dtype: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.json; see `hugging_face_t5gemma.to_json`."""
    ids_json = ids_to_json(kept)
    before = kept.get("encoder") or {}
    usual = {**_FIXED, **ids_json}
    text = {**usual, "model_type": "t5gemma2_text", **(before.get("text_config") or {})}
    decoder = {**usual, "model_type": "t5gemma2_decoder", **(kept.get("decoder") or {})}
    described = {
        "model_type": FAMILY,
        "vocab_size": config.vocab_size,
        "eoi_token_index": config.end_of_image,
        "encoder": {
            "model_type": "t5gemma2_encoder",
            **before,
            "eoi_token_index": config.end_of_image,
            "text_config": {**text, **_stack_json(config, config.encoder)},
        },
        "decoder": {**decoder, **_stack_json(config, config.decoder)},
        **dtype_json(dtype, kept),
    }
    return {
        "architectures": ["T5Gemma2ForConditionalGeneration"],
        "dropout_rate": config.dropout_rate,
        "is_encoder_decoder": True,
        **ids_json,
        **kept,
        **described,
    }


def _stack_json(config: T5Gemma2Config, shape: StackConfig) -> dict[str, Any]:
    full = {"rope_type": "default", "rope_theta": shape.full_rope_theta or shape.rope_theta}
    if shape.full_rope_factor != 1:
        full |= {"rope_type": "linear", "factor": shape.full_rope_factor}
    return {
        **shape_json(shape),
        "rope_parameters": {
            "full_attention": full,
            "sliding_attention": {"rope_type": "default", "rope_theta": shape.rope_theta},
        },
        "final_logit_softcapping": config.final_softcap,
        "vocab_size": config.vocab_size,
    }
