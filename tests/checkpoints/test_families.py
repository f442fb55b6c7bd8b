"""Hugging Face directories as they were published: old ones, and what goes with the weights."""

import json

from etils import epath
import pytest

from po_jax.checkpoints import convert, describe, hugging_face_config
from po_jax.checkpoints.convert import Target
from po_jax.checkpoints.load import open_checkpoint

# T5 1.0's of 2020.
OLD = {
    "architectures": ["T5WithLMHeadModel"],
    "d_ff": 32,
    "d_kv": 4,
    "d_model": 16,
    "layer_norm_epsilon": 1e-6,
    "model_type": "t5",
    "num_heads": 4,
    "num_layers": 2,
    "relative_attention_num_buckets": 32,
    "vocab_size": 64,
}


def read(folder, content):
    (folder / "config.json").write_text(json.dumps(content))
    return hugging_face_config.read(epath.Path(folder), has_head=False)


@pytest.mark.parametrize(
    ("family", "activations"),
    [("t5", ("relu",)), ("mt5", ("gelu", "linear")), ("umt5", ("gelu", "linear"))],
)
@pytest.mark.parametrize("said", [{}, {"feed_forward_proj": None}])
def test_a_config_that_says_nothing_of_the_activation(tmp_path, family, activations, said):
    config, found = read(tmp_path, {**OLD, "model_type": family, **said})
    assert (config.mlp_activations, found) == (activations, family)
    assert (config.num_encoder_layers, config.num_decoder_layers) == (2, 2)
    assert config.logits_via_embedding == (family != "mt5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": "16"}, "expected d_model to be a number, got '16'"),
        ({"vocab_size": 64.0}, "expected vocab_size to be a number, got 64.0"),
        ({"num_layers": True}, "expected num_layers to be a number, got True"),
        ({"num_heads": 0}, "config.json: .*num_heads: expected a positive"),
        ({"dropout_rate": "0.1"}, "expected dropout_rate to be a number"),
        ({"dropout_rate": 1.5}, "config.json: .*dropout_rate: expected a rate"),
        ({"model_type": ["t5"]}, "expected a model_type of the T5 families"),
        ({"feed_forward_proj": ["relu"]}, "expected feed_forward_proj in"),
        ({"layer_norm_epsilon": "1e-6"}, "expected layer_norm_epsilon in"),
    ],
)
def test_options_of_another_type(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, OLD | change)


@pytest.mark.parametrize("id", ["1", -1, [1, 2], True, 1.0])
def test_special_ids_that_are_none(tmp_path, id):
    read(tmp_path, {**OLD, "eos_token_id": id})
    with pytest.raises(ValueError, match=r"expected \['pad_token_id', .*\] to be ids, got \["):
        hugging_face_config.special_ids(epath.Path(tmp_path))


KEPT = {
    "eos_token_id": 2,
    "n_positions": 512,
    "task_specific_params": {"summarization": {"prefix": "summarize: ", "num_beams": 4}},
    "output_past": True,
    "use_cache": False,
    "architectures": ["T5WithLMHeadModel"],
    "an_option_of_next_year": None,
}


@pytest.fixture
def published(small, tmp_path):
    """A directory with all that people put beside weights."""
    folder = tmp_path / "published"
    folder.mkdir()
    for file in small.directory.iterdir():
        file.copy(folder / file.name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | KEPT))
    files = {
        "generation_config.json": '{"eos_token_id": [2, 7], "max_new_tokens": 99}',
        "added_tokens.json": "{}",
        "chat_template.jinja": "{{ messages }}",
        "LICENSE": "Apache",
        "pytorch_model.bin": "weights of another format",
        "tf_model.h5": "again",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "onnx").mkdir()
    return folder, files


@pytest.mark.parametrize("like", [None, "published"])
def test_what_the_network_does_not_determine_is_kept(published, tmp_path, like):
    folder, files = published
    source = folder
    if like:
        source = tmp_path / "t5x"
        convert.plan(folder, Target(format="t5x")).write(source)
    target = Target(format="hugging_face", like=like and folder, dtype="bfloat16")
    convert.plan(source, target).write(tmp_path / "out")
    before, after = (
        json.loads((path / "config.json").read_text()) for path in (folder, tmp_path / "out")
    )
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} == {
        "torch_dtype"
    }
    assert after.items() >= KEPT.items()
    kept = [name for name in files if not name.endswith((".bin", ".h5"))]
    assert {name: (tmp_path / "out" / name).read_text() for name in kept} == {
        name: files[name] for name in kept
    }
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted([*kept, "config.json", "model.safetensors"])
    assert open_checkpoint(tmp_path / "out").config == open_checkpoint(folder).config


def test_what_the_network_determines_follows_it(small, tmp_path):
    kept = {
        "vocab_size": 7,
        "d_ff": 7,
        "feed_forward_proj": "relu",
        "dtype": "float16",
        "scale_decoder_outputs": True,
        "model_type": "mt5",
        "architectures": ["MT5EncoderModel"],
    }
    written = hugging_face_config.to_json(small.config, family="t5", dtype="bfloat16", kept=kept)
    assert written["dtype"] == written["torch_dtype"] == "bfloat16"
    assert written["scale_decoder_outputs"] is written["tie_word_embeddings"] is False
    assert written["architectures"] == ["T5ForConditionalGeneration"]
    (tmp_path / "config.json").write_text(json.dumps(written))
    config, family = hugging_face_config.read(epath.Path(tmp_path), has_head=True)
    assert describe.parameter_shapes(config) == describe.parameter_shapes(small.config)
    assert family == "t5"
