"""config.json of T5Gemma 2s: as they were published, and mistakes in them."""

import json

from etils import epath
import pytest

from po_jax.checkpoints import hugging_face_config
from po_jax.language_model import SpecialIds
from po_jax.t5gemma.config import StackConfig, T5Gemma2Config

# As transformers 5 wrote a stack of t5gemma-2-270m-270m, in smaller sizes.
ROPE = {
    "full_attention": {"factor": 8.0, "rope_theta": 1000000, "rope_type": "linear"},
    "sliding_attention": {"rope_theta": 10000, "rope_type": "default"},
}
STACK = {
    "_sliding_window_pattern": 6,
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "dropout_rate": 0.0,
    "final_logit_softcapping": None,
    "head_dim": 6,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 12,
    "intermediate_size": 14,
    "layer_types": [*["sliding_attention"] * 5, "full_attention", "sliding_attention"],
    "max_position_embeddings": 32768,
    "model_type": "t5gemma2_decoder",
    "num_attention_heads": 4,
    "num_hidden_layers": 7,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 9,
    "rms_norm_eps": 1e-06,
    "rope_parameters": ROPE,
    "sliding_window": 512,
    "use_bidirectional_attention": False,
    "vocab_size": 64,
}
TEXT = STACK | {"model_type": "t5gemma2_text", "bos_token_id": 2, "rope_scaling": None}
ENCODER = {
    "eoi_token_index": 40,
    "mm_tokens_per_image": 256,
    "model_type": "t5gemma2_encoder",
    "text_config": TEXT,
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
}
PUBLISHED = {
    "architectures": ["T5Gemma2ForConditionalGeneration"],
    "bos_token_id": 2,
    "decoder": STACK,
    "dropout_rate": 0.0,
    "dtype": "bfloat16",
    "encoder": ENCODER,
    "eoi_token_index": 40,
    "eos_token_id": 1,
    "is_encoder_decoder": True,
    "model_type": "t5gemma2",
    "pad_token_id": 0,
    "vocab_size": 64,
}
SHAPE = StackConfig(
    emb_dim=12,
    num_heads=4,
    num_kv_heads=1,
    head_dim=6,
    mlp_dim=14,
    num_layers=7,
    query_scalar=9,
    sliding_window=512,
    sliding_layers=[True] * 5 + [False, True],
    attention_softcap=None,
    full_rope_theta=1e6,
    full_rope_factor=8.0,
)
CONFIG = T5Gemma2Config(vocab_size=64, encoder=SHAPE, decoder=SHAPE, end_of_image=40)


def write(folder, content):
    (folder / "config.json").write_text(json.dumps(content))
    return epath.Path(folder)


def read(folder, content):
    return hugging_face_config.read(write(folder, content), has_head=False)


def with_stack(**change):
    return PUBLISHED | {"encoder": ENCODER | {"text_config": TEXT | change}}


def test_as_published(tmp_path):
    assert read(tmp_path, PUBLISHED) == (CONFIG, "t5gemma2")
    assert hugging_face_config.special_ids(epath.Path(tmp_path)) == SpecialIds(0, 1, 2)


def test_what_is_not_said_is_what_transformers_takes_it_for(tmp_path):
    unsaid = ("layer_types", "rope_parameters", "final_logit_softcapping")
    stack = {name: value for name, value in STACK.items() if name not in unsaid}
    encoder = {"text_config": stack, "model_type": "t5gemma2_encoder"}
    found, _ = read(tmp_path, PUBLISHED | {"encoder": encoder, "decoder": stack})
    assert found.end_of_image == 256000
    assert found.encoder.sliding_layers == SHAPE.sliding_layers
    assert (found.encoder.rope_theta, found.encoder.full_rope_theta) == (1e4, 1e6)
    assert found.encoder.full_rope_factor == 1.0


def test_what_the_network_does_not_determine_is_kept(tmp_path):
    written = hugging_face_config.to_json(
        CONFIG, family="t5gemma2", dtype="float32", kept=PUBLISHED | {"an_option": None}
    )
    assert written.pop("an_option") is None and written.pop("dtype") == "float32"
    encoder, decoder = written.pop("encoder"), written.pop("decoder")
    assert written.items() <= PUBLISHED.items()
    assert encoder.pop("text_config").items() >= TEXT.items() and decoder.items() >= STACK.items()
    assert encoder == {name: value for name, value in ENCODER.items() if name != "text_config"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hidden_size": "12"},
            "expected encoder.text_config.hidden_size to be a number, got '12'",
        ),
        ({"hidden_size": 16}, r"expected one emb_dim of encoder and decoder, got \[16, 12\]"),
        ({"attn_logit_softcapping": 50.0}, "expected attn_logit_softcapping to be None, got 50.0"),
        ({"use_bidirectional_attention": True}, "expected use_bidirectional_attention to be False"),
        ({"vocab_size": 65}, r"expected one vocab_size of encoder and decoder, got \[65, 64\]"),
        ({"layer_types": ["chunked"] * 7}, r"text_config.layer_types in .*got \['chunked'\]"),
        ({"rope_scaling": {"factor": 8.0}}, "expected rope_scaling to be None"),
        (
            {"rope_parameters": ROPE | {"full_attention": {"rope_type": "yarn"}}},
            "plain rotary positions, or divided ones .*yarn",
        ),
        (
            {"rope_parameters": ROPE | {"sliding_attention": ROPE["full_attention"]}},
            "plain rotary positions, or divided ones .*linear",
        ),
    ],
)
def test_a_stack_that_is_none_of_the_familys(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, with_stack(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": None}, "expected encoder.text_config to be an object, got None"),
        ({"decoder": 3}, "expected decoder to be an object, got 3"),
        ({"dropout_rate": "0"}, "expected dropout_rate to be a number, got '0'"),
        ({"encoder": ENCODER | {"eoi_token_index": "7"}}, "eoi_token_index to be an id, got '7'"),
    ],
)
def test_a_config_that_is_none_of_the_familys(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, PUBLISHED | change)


def test_the_first_familys_network_is_refused():
    with pytest.raises(
        ValueError, match="family t5gemma: expected a network of it, got a T5Gemma2"
    ):
        hugging_face_config.to_json(CONFIG, family="t5gemma", dtype="float32", kept={})
