"""Hugging Face's config.json and names of a T5Gemma, to and from `T5GemmaConfig`."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from po_jax.language_model import SpecialIds
from po_jax.t5gemma.config import StackConfig, T5GemmaConfig
from po_jax.t5gemma.layers import EPSILON

FAMILY = "t5gemma"
HEAD = "lm_head.out_proj.weight"
COPIES = {HEAD: "model.decoder.embed_tokens.weight"}

SIZES = {
    "emb_dim": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "mlp_dim": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "query_scalar": "query_pre_attn_scalar",
    "sliding_window": "sliding_window",
}
LAYER_TYPES = {"sliding_attention": True, "full_attention": False}
_CAPS = {  # And what a config that says nothing of them means; null is none.
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
# What the network takes for granted; a config that says nothing of it means these, too.
FIXED = {
    "attention_bias": False,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": EPSILON,
    "tie_word_embeddings": True,
}
_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
_MLP = {"wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}
# Of each sublayer: our name and that of its norms, and theirs.
Sublayer = tuple[str, str, str, str]
ENCODER_ATTENTION: Sublayer = ("attention", "attention", "self_attn", "self_attn")
SELF_ATTENTION: Sublayer = ("self_attention", "self_attention", "self_attn", "self_attn")
MLP: Sublayer = ("mlp", "mlp", "mlp", "feedforward")
_SUBLAYERS: dict[str, tuple[Sublayer, ...]] = {
    "encoder": (ENCODER_ATTENTION, MLP),
    "decoder": (
        SELF_ATTENTION,
        ("encoder_decoder_attention", "cross_attention", "cross_attn", "cross_attn"),
        MLP,
    ),
}


def names(config: T5GemmaConfig) -> dict[str, str]:
    """Hugging Face's name of every parameter of the network of named layers, by our name."""
    result = {}
    for stack, sublayers in _SUBLAYERS.items():
        result[f"{stack}/token_embedder/embedding"] = f"model.{stack}.embed_tokens.weight"
        result[f"{stack}/{stack}_norm/scale"] = f"model.{stack}.norm.weight"
        for i in range(getattr(config, stack).num_layers):
            layer, their_layer = f"{stack}/layers_{i}", f"model.{stack}.layers.{i}"
            for sublayer in sublayers:
                result |= sublayer_names(layer, their_layer, sublayer)
    return result


def sublayer_names(layer: str, their_layer: str, sublayer: Sublayer) -> dict[str, str]:
    """Those of a sublayer's kernels and of the norms before and after it."""
    ours, norm, theirs, their_norm = sublayer
    result = {}
    for side in ("pre", "post"):
        result[f"{layer}/{side}_{norm}_layer_norm/scale"] = (
            f"{their_layer}.{side}_{their_norm}_layernorm.weight"
        )
    for part, their_part in (_MLP if ours == "mlp" else _ATTENTION).items():
        result[f"{layer}/{ours}/{part}/kernel"] = f"{their_layer}.{theirs}.{their_part}.weight"
    return result


def read(content: Mapping[str, Any], file: epath.Path) -> T5GemmaConfig:
    """The network of named layers that a config.json describes.

    Raises:
      ValueError: naming the option that is absent, unknown or contradicts another.
    """
    stacks = {name: content.get(name) for name in ("encoder", "decoder")}
    try:
        vocab_size = check(content, stacks, FIXED)
        return T5GemmaConfig(
            vocab_size=vocab_size,
            encoder=_read_stack(stacks["encoder"], "encoder"),
            decoder=_read_stack(stacks["decoder"], "decoder"),
            final_softcap=_cap(stacks["decoder"], "final_logit_softcapping"),
            dropout_rate=number(content, "dropout_rate", 0.0),
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def check(content: Mapping[str, Any], stacks: Mapping[str, Any], fixed: Mapping[str, Any]) -> int:
    """The number of tokens of a config and its stacks, if all say what is `fixed` or nothing of it.

    Raises:
      ValueError: if they say something else, or one of them is no object or lacks a size.
    """
    for name, stack in stacks.items():
        if not isinstance(stack, dict):
            raise ValueError(f"expected {name} to be an object, got {stack!r}.")
        for part in (content, stack):
            wrong = [k for k, v in fixed.items() if part.get(k, v) != v]
            if wrong:
                expected, got = fixed[wrong[0]], part[wrong[0]]
                raise ValueError(f"expected {wrong[0]} to be {expected}, got {got!r}.")
        for key in SIZES.values():
            if type(stack.get(key)) is not int:
                raise ValueError(f"expected {name}.{key} to be a number, got {stack.get(key)!r}.")
    sizes = [stack.get("vocab_size") for stack in stacks.values()]
    if sizes[0] != sizes[1] or type(sizes[0]) is not int:
        raise ValueError(f"expected one vocab_size of encoder and decoder, got {sizes}.")
    return sizes[0]


def number(content: Mapping[str, Any], name: str, unsaid: float) -> float:
    value = content.get(name, unsaid)
    if type(value) not in (int, float):
        raise ValueError(f"expected {name} to be a number, got {value!r}.")
    return float(value)


def _cap(content: Mapping[str, Any], name: str) -> float | None:
    return number(content, name, _CAPS[name]) if content.get(name, 0.0) is not None else None


def sliding_layers(content: Mapping[str, Any], name: str) -> list[bool] | None:
    """Whether each layer slides, where a stack says so."""
    types = content.get("layer_types")
    if types is None:
        return None
    if not set(types) <= set(LAYER_TYPES):
        raise ValueError(
            f"expected {name}.layer_types in {list(LAYER_TYPES)}, got {sorted(set(types))}."
        )
    return [LAYER_TYPES[kind] for kind in types]


def _read_stack(content: Mapping[str, Any], name: str) -> StackConfig:
    rope = content.get("rope_parameters") or content
    if rope.get("rope_type", "default") != "default" or content.get("rope_scaling") is not None:
        raise ValueError(
            f"expected {name} to have plain rotary positions, got "
            f"{content.get('rope_scaling') or rope}."
        )
    return StackConfig(
        **{ours: content[theirs] for ours, theirs in SIZES.items()},
        sliding_layers=sliding_layers(content, name),
        attention_softcap=_cap(content, "attn_logit_softcapping"),
        rope_theta=number(rope, "rope_theta", 10000.0),
    )


def special_ids(content: Mapping[str, Any], file: epath.Path) -> SpecialIds:
    """Those that a config.json says; of several ids that end a text, the first.

    The decoder starts with BOS, if it is not said otherwise.

    Raises:
      ValueError: if one is absent or no token's id.
    """
    decoder = content.get("decoder") or {}

    def said(name: str) -> Any:
        found = content.get(name, decoder.get(name))
        return found[0] if isinstance(found, list) and found else found

    start = content.get("decoder_start_token_id")
    if start is None:
        start = decoder.get("bos_token_id", content.get("bos_token_id"))
    ids = {"pad": said("pad_token_id"), "eos": said("eos_token_id"), "start": start}
    wrong = [id for id in ids.values() if type(id) is not int or id < 0]
    if wrong:
        raise ValueError(
            f"{file}: expected pad_token_id, eos_token_id and bos_token_id to be ids, got {wrong}."
        )
    return SpecialIds(**ids)


def to_json(config: T5GemmaConfig, *, dtype: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.json.

    Args:
      config: the network.
      dtype: of the parameters.
      kept: another config.json with the special ids, whose options stay where the network does not
        determine them.

    Raises:
      ValueError: if `kept` lacks special ids.
    """
    ids_json = ids_to_json(kept)
    described = {"model_type": FAMILY, "vocab_size": config.vocab_size}
    for stack in ("encoder", "decoder"):
        before = kept.get(stack) or {}
        described[stack] = {
            **FIXED,
            **ids_json,
            "is_decoder": stack == "decoder",
            "model_type": "t5_gemma_module",
            **before,
            **_stack_json(config, stack, before),
        }
    described["decoder"]["cross_attention_hidden_size"] = config.encoder.emb_dim
    described |= dtype_json(dtype, kept)
    usual = {
        "architectures": ["T5GemmaForConditionalGeneration"],
        "dropout_rate": config.dropout_rate,
        "is_encoder_decoder": True,
        **ids_json,
    }
    return {**usual, **kept, **described}


def ids_to_json(kept: Mapping[str, Any]) -> dict[str, int]:
    """The special ids of another config.json, by the names that all parts of one have for them."""
    ids = special_ids(kept, epath.Path("the config to be like"))
    return {"pad_token_id": ids.pad, "eos_token_id": ids.eos, "bos_token_id": ids.start}


def dtype_json(dtype: str, kept: Mapping[str, Any]) -> dict[str, str]:
    """The dtype, by the name that another config.json has for it."""
    return dict.fromkeys({"dtype", "torch_dtype"} & set(kept) or {"torch_dtype"}, dtype)


def shape_json(shape: StackConfig) -> dict[str, Any]:
    """The sizes of a stack, and which layers slide."""
    kinds = {slides: kind for kind, slides in LAYER_TYPES.items()}
    return {
        **{theirs: getattr(shape, ours) for ours, theirs in SIZES.items()},
        "layer_types": [kinds[slides] for slides in shape.sliding_layers],
    }


def _stack_json(config: T5GemmaConfig, stack: str, before: Mapping[str, Any]) -> dict[str, Any]:
    shape: StackConfig = getattr(config, stack)
    if "rope_parameters" in before:  # The name of `transformers` 5.
        rope = {"rope_parameters": {**before["rope_parameters"], "rope_theta": shape.rope_theta}}
    else:
        rope = {"rope_theta": shape.rope_theta}
    return {
        **shape_json(shape),
        **rope,
        "attn_logit_softcapping": shape.attention_softcap,
        "final_logit_softcapping": config.final_softcap,
        "vocab_size": config.vocab_size,
    }
