"""Every T5 family against `transformers`: the same logits and generations, in and out.

Models have random weights, odd sizes, different depths of encoder and decoder, padded batches, and
prompts longer than the relative bias distinguishes.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.checkpoints import convert, describe
from po_jax.checkpoints.convert import Target
from po_jax.checkpoints.load import load, open_checkpoint
from po_jax.language_model import SpecialIds
from po_jax.sampling import Strategy, sample
from po_jax.t5.language_model import T5LM

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = dict(d_model=20, d_kv=6, num_heads=3, d_ff=28, num_layers=2, num_decoder_layers=1)
DEEPER = dict(num_layers=3, num_decoder_layers=2)
GATED = dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)
FAMILIES = {  # name: (model class, options, whether the head is the embedding)
    "t5_1_0": ("T5", dict(vocab_size=61, feed_forward_proj="relu", **DEEPER), True),
    "t5_1_1": ("T5", dict(vocab_size=61, **GATED), False),
    "flan": ("T5", dict(vocab_size=67, **GATED | {"d_ff": 44, "num_heads": 5}), False),
    "mt5": ("MT5", dict(vocab_size=97, **GATED), False),
    "byt5": ("T5", dict(vocab_size=384, **GATED | {"num_layers": 3}), False),
    "ul2": ("T5", dict(vocab_size=61, **GATED | {"feed_forward_proj": "gated-silu"}), False),
    "umt5": ("UMT5", dict(vocab_size=73, **GATED | DEEPER), False),
    "umt5_tied": ("UMT5", dict(vocab_size=73, feed_forward_proj="gated-gelu"), True),
}
BATCH, PROMPT, TARGET, NEW_TOKENS = 3, 141, 41, 13


def from_pretrained(name, directory):
    """The model as the family's authors meant it."""
    model_class = getattr(transformers, f"{FAMILIES[name][0]}ForConditionalGeneration")
    model = model_class.from_pretrained(directory).eval()
    if name == "umt5":
        # From version 5, transformers scales umT5's logits by d_model ** -0.5, which belongs to
        # a head that is the embedding; T5X and version 4 do not. Greedy decoding is the same.
        model.config.tie_word_embeddings = False
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """Name of a family, and the directory of a random model of it."""
    return request.param, random_model(request.param, tmp_path_factory.mktemp(request.param))


def random_model(name, folder):
    prefix, options, tied = FAMILIES[name]
    options = SIZES | options | {"decoder_start_token_id": 0}
    config = getattr(transformers, f"{prefix}Config")(**options)
    torch.manual_seed(7)
    model = getattr(transformers, f"{prefix}ForConditionalGeneration")(config)
    for parameter in model.parameters():  # Norms and biases are not left at their start.
        parameter.data += 0.1 * torch.randn_like(parameter)
    if not tied:
        head = torch.randn(model.lm_head.weight.shape) / 4
        model.lm_head.weight = torch.nn.Parameter(head)
    directory = folder / "model"
    model.save_pretrained(directory)
    file = directory / "config.json"
    content = json.loads(file.read_text())
    if not tied:  # As the published configs have it; transformers 5 saves it as true.
        content["tie_word_embeddings"] = False
        file.write_text(json.dumps(content))
    return directory


def parameters(directory, **options):
    """Our network and parameters from a Hugging Face directory."""
    config = dataclasses.replace(open_checkpoint(directory).config, **options)
    model = T5LM(config)
    return model, load(directory, jax.eval_shape(model.init, jax.random.key(0)))


def batch(vocab_size):
    """Prompts and decoder inputs, padded at the end."""
    rng = np.random.default_rng(5)
    prompts = rng.integers(2, vocab_size, (BATCH, PROMPT))
    inputs = rng.integers(2, vocab_size, (BATCH, TARGET))
    for tokens, lengths in ((prompts, (141, 60, 1)), (inputs, (41, 30, 7))):
        for row, length in zip(tokens, lengths, strict=True):
            row[length:] = 0
    inputs[:, 0] = 0
    return prompts.astype(np.int32), inputs.astype(np.int32)


def torch_logits(model, prompts, inputs):
    prompts, inputs = torch.from_numpy(prompts).long(), torch.from_numpy(inputs).long()
    with torch.no_grad():
        logits = model(
            input_ids=prompts, attention_mask=(prompts > 0).long(), decoder_input_ids=inputs
        ).logits
    return logits.float().numpy()


def test_logits(family):
    name, directory = family
    model, params = parameters(directory)
    prompts, inputs = batch(model.config.vocab_size)
    assert model.config.logits_via_embedding == FAMILIES[name][2]
    expected = torch_logits(from_pretrained(name, directory), prompts, inputs)
    found = jax.jit(model.module.apply)({"params": params}, prompts, inputs)
    assert found.dtype == jnp.float32 and expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["t5_1_0", "umt5"], indirect=True)
def test_stacked_layers_have_the_same_logits(family):
    name, directory = family
    model, params = parameters(directory, scan_layers=True, shared_relative_bias=False)
    prompts, inputs = batch(model.config.vocab_size)
    expected = torch_logits(from_pretrained(name, directory), prompts, inputs)
    found = jax.jit(model.module.apply)({"params": params}, prompts, inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", [*FAMILIES][:-1], indirect=True)
def test_greedy_generations(family):
    name, directory = family
    model, params = parameters(directory)
    prompts, _ = batch(model.config.vocab_size)
    ids = torch.from_numpy(prompts).long()
    theirs = from_pretrained(name, directory)

    def generate(eos):
        options = dict(max_new_tokens=NEW_TOKENS, do_sample=False, num_beams=1, pad_token_id=0)
        tokens = theirs.generate(
            input_ids=ids, attention_mask=(ids > 0).long(), eos_token_id=eos, **options
        ).numpy()[:, 1:]
        return np.pad(tokens, ((0, 0), (0, NEW_TOKENS - tokens.shape[1])))

    # A token of some row's continuation plays EOS, so that rows end at different lengths.
    eos = int(generate(-1)[0, 4])
    expected = generate(eos)
    model = dataclasses.replace(model, special_ids=SpecialIds(eos=eos))
    strategy = Strategy(max_length=NEW_TOKENS, temperature=0.0)
    beta = jnp.zeros((BATCH, 1))
    rollout = jax.jit(sample, static_argnums=(0, 1))(
        model, strategy, params, None, jnp.asarray(prompts), beta, jax.random.key(0)
    )
    np.testing.assert_array_equal(rollout.completion[:, 0], expected)
    assert (expected == 0).any(), "no row ended early"


def test_there_and_back_is_the_identity(family, tmp_path):
    name, directory = family
    prompts, inputs = batch(FAMILIES[name][1]["vocab_size"])
    expected = torch_logits(from_pretrained(name, directory), prompts, inputs)
    config = open_checkpoint(directory).config
    # Through T5X's format with stacked layers, and back to where it came from.
    convert.plan(directory, Target(format="t5x", scanned=True)).write(tmp_path / "t5x")
    convert.plan(tmp_path / "t5x", Target(format="hugging_face", like=directory)).write(
        tmp_path / "back"
    )
    back = open_checkpoint(tmp_path / "back")
    assert dataclasses.replace(back.config, dropout_rate=config.dropout_rate) == config
    original = open_checkpoint(directory).parameters
    assert set(back.parameters) == set(original) == set(describe.parameter_shapes(config))
    for path, leaf in original.items():
        assert np.array_equal(
            leaf.value().view(np.uint32), back.parameters[path].value().view(np.uint32)
        ), path
    found = torch_logits(from_pretrained(name, tmp_path / "back"), prompts, inputs)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("family", ["t5_1_0", "t5_1_1", "ul2"], indirect=True)
def test_bfloat16(family, tmp_path):
    """Within twice the distance at which transformers' own bfloat16 lies from float32."""
    name, directory = family
    convert.plan(directory, Target(format="hugging_face", dtype="bfloat16")).write(
        tmp_path / "half"
    )
    model, params = parameters(tmp_path / "half", dtype=jnp.bfloat16)
    prompts, inputs = batch(model.config.vocab_size)
    exact = torch_logits(from_pretrained(name, directory), prompts, inputs)
    theirs = from_pretrained(name, tmp_path / "half")
    assert theirs.dtype == torch.bfloat16
    their_error = np.abs(torch_logits(theirs, prompts, inputs) - exact)
    found = jax.jit(model.module.apply)({"params": params}, prompts, inputs)
    error = np.abs(np.asarray(found) - exact)
    assert error.mean() < 2 * their_error.mean() and error.max() < 2 * their_error.max()


@pytest.mark.parametrize("family", ["t5_1_1"], indirect=True)
def test_activations_beyond_half_precision(family):
    """bfloat16 holds what overflows float16 (largest value 65504), which is refused."""
    _, directory = family
    model, params = parameters(directory, dtype=jnp.bfloat16)
    for stack, layer in (("encoder", "layers_1"), ("decoder", "layers_0")):
        params[stack][layer]["mlp"]["wo"]["kernel"] *= 1e5
    prompts, inputs = batch(model.config.vocab_size)
    logits = jax.jit(model.module.apply)({"params": params}, prompts, inputs)
    assert jnp.isfinite(logits).all()
    with pytest.raises(ValueError, match="expected float32 or bfloat16, got float16"):
        dataclasses.replace(model.config, dtype=jnp.float16)
