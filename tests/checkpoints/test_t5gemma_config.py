"""config.json of T5Gemmas: as they were published, and mistakes in them."""

import json

from etils import epath
import pytest

from po_jax.checkpoints import hugging_face_config
from po_jax.language_model import SpecialIds
from po_jax.t5gemma.config import StackConfig, T5GemmaConfig

# As transformers 4.53 wrote a stack of t5gemma-2b-2b-ul2-it, in smaller sizes.
STACK = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 50.0,
    "bos_token_id": 2,
    "dropout_rate": 0.0,
    "eos_token_id": [1, 107],
    "final_logit_softcapping": 30.0,
    "head_dim": 6,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 10,
    "intermediate_size": 14,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "max_position_embeddings": 8192,
    "model_type": "t5_gemma_module",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 9,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 64,
}
PUBLISHED = {
    "architectures": ["T5GemmaForConditionalGeneration"],
    "decoder": STACK,
    "dropout_rate": 0.0,
    "encoder": STACK,
    "eos_token_id": [1, 107],
    "is_encoder_decoder": True,
    "model_type": "t5gemma",
    "pad_token_id": 0,
    "torch_dtype": "bfloat16",
    "vocab_size": 256000,
}
SHAPE = StackConfig(
    emb_dim=10,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_dim=14,
    num_layers=3,
    query_scalar=9,
)
CONFIG = T5GemmaConfig(vocab_size=64, encoder=SHAPE, decoder=SHAPE)


def write(folder, content):
    (folder / "config.json").write_text(json.dumps(content))
    return epath.Path(folder)


def read(folder, content):
    return hugging_face_config.read(write(folder, content), has_head=False)


def test_as_published(tmp_path):
    assert read(tmp_path, PUBLISHED) == (CONFIG, "t5gemma")
    assert hugging_face_config.special_ids(epath.Path(tmp_path)) == SpecialIds(0, 1, 2)


def test_what_is_not_said_is_what_the_family_has(tmp_path):
    unsaid = ("layer_types", "rope_theta", "attn_logit_softcapping", "final_logit_softcapping")
    stack = {name: value for name, value in STACK.items() if name not in unsaid}
    assert read(tmp_path, PUBLISHED | {"encoder": stack, "decoder": stack})[0] == CONFIG


def test_what_the_network_does_not_determine_is_kept(tmp_path):
    written = hugging_face_config.to_json(
        CONFIG, family="t5gemma", dtype="float32", kept=PUBLISHED | {"an_option": None}
    )
    changed = {name for name in written if written[name] != PUBLISHED.get(name, 0)}
    changed -= {"an_option", "torch_dtype", "vocab_size", "bos_token_id"}
    assert changed == {"encoder", "decoder"} and written["eos_token_id"] == [1, 107]
    assert written["decoder"] == STACK | {
        "cross_attention_hidden_size": 10,
        "is_decoder": True,
        "tie_word_embeddings": True,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "10"}, "expected encoder.hidden_size to be a number, got '10'"),
        ({"num_key_value_heads": 3}, "config.json: StackConfig: expected num_heads to be a multi"),
        ({"attention_bias": True}, "expected attention_bias to be False, got True"),
        ({"hidden_activation": "relu"}, "expected hidden_activation to be gelu_pytorch_tanh"),
        ({"rms_norm_eps": 1e-5}, "expected rms_norm_eps to be 1e-06, got 1e-05"),
        ({"tie_word_embeddings": False}, "expected tie_word_embeddings to be True, got False"),
        ({"vocab_size": 65}, r"expected one vocab_size of encoder and decoder, got \[65, 64\]"),
        ({"layer_types": ["chunked"] * 3}, r"expected encoder.layer_types in .*got \['chunked'\]"),
        ({"layer_types": ["full_attention"]}, "expected one for each of 3 layers, got 1"),
        ({"attn_logit_softcapping": "50"}, "expected attn_logit_softcapping to be a number"),
        ({"rope_scaling": {"factor": 2}}, "expected encoder to have plain rotary positions"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "plain rotary positions, got .*yarn"),
    ],
)
def test_a_stack_that_is_none_of_the_familys(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, PUBLISHED | {"encoder": STACK | change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": None}, "expected encoder to be an object, got None"),
        ({"dropout_rate": "0"}, "expected dropout_rate to be a number, got '0'"),
        ({"dropout_rate": 1.0}, "config.json: .*dropout_rate: expected a rate"),
    ],
)
def test_a_config_that_is_none_of_the_familys(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, PUBLISHED | change)


@pytest.mark.parametrize("id", ["1", -1, [], None, True])
def test_special_ids_that_are_none(tmp_path, id):
    folder = write(tmp_path, PUBLISHED | {"eos_token_id": id})
    with pytest.raises(ValueError, match="eos_token_id and bos_token_id to be ids, got"):
        hugging_face_config.special_ids(folder)


@pytest.mark.parametrize("family", ["t5", "umt5"])
def test_another_familys_network_is_refused(family):
    with pytest.raises(ValueError, match=f"family {family}: expected a network of it, got a T5Gem"):
        hugging_face_config.to_json(CONFIG, family=family, dtype="float32", kept={})
