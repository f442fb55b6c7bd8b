"""T5Gemma and T5Gemma 2 against `transformers`: the same logits and generations, in and out.

Models have random weights, odd sizes, different widths (of T5Gemma 2: heads), depths and windows of
encoder and decoder, padded batches, and prompts and completions longer than the windows.
"""

import dataclasses
import json

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.checkpoints import convert, describe, safetensors
from po_jax.checkpoints.convert import Target
from po_jax.checkpoints.load import load, open_checkpoint
from po_jax.language_model import SpecialIds
from po_jax.sampling import Strategy, sample

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WIDE = dict(
    hidden_size=20,
    intermediate_size=28,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,
    query_pre_attn_scalar=5,
    sliding_window=9,
)
NARROW = dict(
    hidden_size=12,
    intermediate_size=22,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=8,
    query_pre_attn_scalar=11,
    sliding_window=4,
)
CAPS = dict(attn_logit_softcapping=3.0, final_logit_softcapping=4.0)  # That bend what they cap.
GLOBAL_FIRST = dict(layer_types=["full_attention", "sliding_attention", "sliding_attention"])
MODELS = {  # name: (encoder, decoder)
    "wide_encoder": (WIDE | CAPS, NARROW | CAPS),
    "wide_decoder": (NARROW | {"pad_token_id": 3}, WIDE | GLOBAL_FIRST | {"pad_token_id": 3}),
}


def rope(theta, factor):
    """Of T5Gemma 2, whose layers without a window have another base, and positions divided."""
    full = {"rope_type": "linear", "factor": factor, "rope_theta": theta}
    return {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 50}}


# Of T5Gemma 2 both have one width; an even window is not in the middle.
SECOND = dict(
    encoder=WIDE | dict(hidden_size=24, sliding_window=10, rope_parameters=rope(900, 8.0)),
    decoder=NARROW | dict(hidden_size=24, num_hidden_layers=3, rope_parameters=rope(700, 2.0)),
)
SECOND["encoder"]["layer_types"] = ["sliding_attention", "sliding_attention", "full_attention"]
SECOND["decoder"]["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
VISION = dict(
    hidden_size=16,
    intermediate_size=18,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=28,
    patch_size=14,
)
END_OF_IMAGE = 7
ALL = [*MODELS, "second"]
IDS = {
    "wide_encoder": SpecialIds(0, 1, 2),
    "wide_decoder": SpecialIds(3, 1, 2),
    "second": SpecialIds(0, 1, 2),
}
VOCAB, BATCH, PROMPT, TARGET, NEW_TOKENS = 61, 3, 41, 17, 13


def random_first(name):
    """A random T5Gemma of `transformers`, of one of MODELS."""
    encoder, decoder = ({"vocab_size": VOCAB} | stack for stack in MODELS[name])
    config = transformers.T5GemmaConfig(
        encoder=encoder, decoder=decoder, vocab_size=VOCAB, pad_token_id=IDS[name].pad
    )
    return transformers.T5GemmaForConditionalGeneration(config)


def random_second():
    """A random T5Gemma 2 of `transformers`, with its vision tower."""
    encoder, decoder = ({"vocab_size": VOCAB} | stack for stack in SECOND.values())
    whole = dict(text_config=encoder, vision_config=VISION, mm_tokens_per_image=4)
    whole["eoi_token_index"] = END_OF_IMAGE
    config = transformers.T5Gemma2Config(encoder=whole, decoder=decoder)
    return transformers.T5Gemma2ForConditionalGeneration(config)


@pytest.fixture(scope="module", params=ALL)
def model(request, tmp_path_factory):
    """Name of a model, and the directory of a random one of its shape."""
    torch.manual_seed(7)
    theirs = random_second() if request.param == "second" else random_first(request.param)
    for name, parameter in theirs.named_parameters():  # Norms are not left at their start.
        scale = 0.3 if name.endswith("norm.weight") else parameter.shape[-1] ** -0.5
        parameter.data += scale * torch.randn_like(parameter)
    directory = tmp_path_factory.mktemp(request.param) / "model"
    theirs.save_pretrained(directory)
    return request.param, directory


def from_pretrained(directory):
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(directory).eval()


def parameters(directory, **options):
    """Our language model and parameters from a Hugging Face directory."""
    opened = open_checkpoint(directory)
    found = describe.language_model(opened)
    found = dataclasses.replace(found, config=dataclasses.replace(found.config, **options))
    return found, load(opened, jax.eval_shape(found.init, jax.random.key(0)))


def batch(ids):
    """Prompts and decoder inputs, padded at the end."""
    rng = np.random.default_rng(5)
    prompts, inputs = (rng.integers(4, VOCAB, (BATCH, n), np.int32) for n in (PROMPT, TARGET))
    for tokens, lengths in ((prompts, (PROMPT, 20, 1)), (inputs, (TARGET, 9, 3))):
        for row, length in zip(tokens, lengths, strict=True):
            row[length:] = ids.pad
    prompts[0, 5] = inputs[1, 4] = END_OF_IMAGE  # An ordinary token, but for T5Gemma 2.
    inputs[:, 0] = ids.start
    return prompts, inputs


def torch_logits(model, ids, prompts, inputs):
    prompts, inputs = torch.from_numpy(prompts).long(), torch.from_numpy(inputs).long()
    with torch.no_grad():
        logits = model(
            input_ids=prompts,
            attention_mask=(prompts != ids.pad).long(),
            decoder_input_ids=inputs,
            decoder_attention_mask=torch.ones_like(inputs),
        ).logits
    return logits.float().numpy()


def test_special_ids_are_those_of_the_checkpoint(model):
    name, directory = model
    assert parameters(directory)[0].special_ids == IDS[name]


@pytest.mark.parametrize("scanned", [False, True])
def test_logits(model, scanned):
    name, directory = model
    ours, params = parameters(directory, scan_layers=scanned)
    prompts, inputs = batch(IDS[name])
    expected = torch_logits(from_pretrained(directory), IDS[name], prompts, inputs)
    found = jax.jit(ours.logits)(params, prompts, inputs)
    assert found.dtype == jnp.float32 and expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def greedy(model, params, prompts):
    rollout = sample(
        model,
        Strategy(max_length=NEW_TOKENS, temperature=0.0),
        params,
        None,
        jnp.asarray(prompts),
        jnp.zeros((BATCH, 1)),
        jax.random.key(0),
    )
    return jax.device_get(rollout)


# Of named layers a cache is as short as the window, and its places are used again.
LAYOUTS = pytest.mark.parametrize(
    ("model", "scanned"),
    [
        ("wide_encoder", True),
        ("wide_decoder", False),
        ("second", False),
        pytest.param("second", True, marks=pytest.mark.slow),
    ],
    indirect=["model"],
)


@LAYOUTS
def test_greedy_generations(model, scanned):
    name, directory = model
    ours, params = parameters(directory, scan_layers=scanned)
    ids = IDS[name]
    prompts, _ = batch(ids)
    tokens = torch.from_numpy(prompts).long()
    theirs = from_pretrained(directory)

    def generate(eos):
        options = dict(max_new_tokens=NEW_TOKENS, do_sample=False, num_beams=1)
        found = theirs.generate(
            input_ids=tokens,
            attention_mask=(tokens != ids.pad).long(),
            decoder_start_token_id=ids.start,
            pad_token_id=ids.pad,
            eos_token_id=eos,
            **options,
        ).numpy()[:, 1:]
        widths = ((0, 0), (0, NEW_TOKENS - found.shape[1]))
        return np.pad(found, widths, constant_values=ids.pad)

    # A token of some row's continuation plays EOS, so that rows end at different lengths.
    eos = int(generate(-1)[0, 6])
    expected = generate(eos)
    ours = dataclasses.replace(ours, special_ids=dataclasses.replace(ids, eos=eos))
    np.testing.assert_array_equal(greedy(ours, params, prompts).completion[:, 0], expected)
    assert (expected == ids.pad).any(), "no row ended early"


@LAYOUTS
def test_scores_are_those_of_the_loop(model, scanned):
    """Four completions of each prompt, some of them longer than the decoder's window."""
    name, directory = model
    ours, params = parameters(directory, scan_layers=scanned)
    prompts, _ = batch(IDS[name])
    beta = jnp.zeros((BATCH, 4))
    rollout = sample(
        ours, Strategy(NEW_TOKENS), params, None, jnp.asarray(prompts), beta, jax.random.key(1)
    )
    assert rollout.mask.sum(axis=-1).max() > ours.config.decoder.sliding_window
    scores = jax.jit(ours.score)(params, prompts, rollout.completion, rollout.mask)
    np.testing.assert_allclose(rollout.policy_logprob, scores, rtol=0, atol=1e-4)


def test_there_and_back_is_the_identity(model, tmp_path):
    name, directory = model
    prompts, inputs = batch(IDS[name])
    expected = torch_logits(from_pretrained(directory), IDS[name], prompts, inputs)
    # Through stacked layers, and back to where it came from.
    convert.plan(directory, Target(format="po_jax", scanned=True)).write(tmp_path / "po_jax")
    convert.plan(tmp_path / "po_jax", Target(format="hugging_face", like=directory)).write(
        tmp_path / "back"
    )
    back, original = open_checkpoint(tmp_path / "back"), open_checkpoint(directory)
    assert back.config == original.config and back.family == original.family
    assert set(back.parameters) == set(describe.parameter_shapes(original.config))
    for path, leaf in original.parameters.items():
        assert np.array_equal(
            leaf.value().view(np.uint32), back.parameters[path].value().view(np.uint32)
        ), path
    before, after = (
        json.loads((folder / "config.json").read_text())
        for folder in (directory, tmp_path / "back")
    )
    assert before == after
    found = torch_logits(from_pretrained(tmp_path / "back"), IDS[name], prompts, inputs)
    np.testing.assert_array_equal(found, expected)
    # Whatever is not of the network, a vision tower, is as it was.
    beside, kept = (safetensors.read(epath.Path(d)) for d in (directory, tmp_path / "back"))
    assert beside.keys() == kept.keys()
    assert any("vision_tower" in tensor for tensor in beside) == (name == "second")
    for tensor, leaf in beside.items():
        np.testing.assert_array_equal(kept[tensor].value(), leaf.value())


@pytest.mark.parametrize("model", ["wide_encoder", "second"], indirect=True)
def test_bfloat16(model, tmp_path):
    """On average no further from float32 than 1.5 times transformers' own bfloat16."""
    name, directory = model
    convert.plan(directory, Target(format="hugging_face", dtype="bfloat16")).write(
        tmp_path / "half"
    )
    ours, params = parameters(tmp_path / "half", dtype=jnp.bfloat16)
    prompts, inputs = batch(IDS[name])
    exact = torch_logits(from_pretrained(directory), IDS[name], prompts, inputs)
    theirs = from_pretrained(tmp_path / "half")
    assert theirs.dtype == torch.bfloat16
    their_error = np.abs(torch_logits(theirs, IDS[name], prompts, inputs) - exact)
    error = np.abs(np.asarray(jax.jit(ours.logits)(params, prompts, inputs)) - exact)
    assert error.mean() < 1.5 * their_error.mean()
