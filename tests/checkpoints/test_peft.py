"""An adapter out of the house, held against `transformers`, merged and in PEFT's format, and back.

PEFT itself is not needed: what it computes, W x + (lora_alpha / r) B A x, is done here by hand, to
the modules that its files name.
"""

import dataclasses
from functools import partial
import json

from etils import epath
import jax
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

from launch import convert
from po_jax.checkpoints import adapters, describe, peft_files, trees
from po_jax.checkpoints.about import About, AdapterFacts
from po_jax.checkpoints.load import load_parameters, open_checkpoint
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.lora import LoRA
from po_jax.partitioning import make_partitioner
from po_jax.training.state import TrainState
from tests.launch import hub_t5, hub_t5gemma

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

INPUTS = np.random.default_rng(0).integers(2, 900, (2, 7)).astype(np.int32)
WRITERS = {
    "t5": hub_t5.write,
    "t5gemma": hub_t5gemma.write,
    "t5gemma2": partial(hub_t5gemma.write, config=hub_t5gemma.SECOND, family="t5gemma2"),
}
PEFT = ["--format=peft"]
TARGETED = ".*(query|key|wo|out)/kernel"
FIRST = "encoder.block.0.layer.0.SelfAttention.q"
TARGETS = np.random.default_rng(1).integers(2, 900, (2, 3)).astype(np.int32)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("t5", False), id="named"),
        *(
            pytest.param((family, scanned), id=f"{family} {scanned}", marks=pytest.mark.slow)
            for family, scanned in (("t5", True), ("t5gemma", False), ("t5gemma2", True))
        ),
    ],
)
def exported(request, tmp_path_factory):
    """A model as `transformers` reads it, an adapter on it that went somewhere, and its logits."""
    folder = epath.Path(tmp_path_factory.mktemp("peft"))
    family, scanned = request.param
    WRITERS[family](folder / "hub")
    base = open_checkpoint(folder / "hub")
    network = describe.language_model(base)
    if scanned:
        config = describe.with_layers(network.config, scanned=True, family=family)
        network = dataclasses.replace(network, config=config)
    model = LoRA(network, rank=2, alpha=5.0, targets=TARGETED)
    params = load_parameters(model, folder / "hub", make_partitioner(devices=jax.devices()[:1]))
    rng = np.random.default_rng(2)
    adapter = jax.tree.map(
        lambda x: x + rng.normal(size=x.shape).astype(np.float32), params["adapter"]
    )
    facts = AdapterFacts(str(base.path), adapters.fingerprint(base.parameters), 2.5, "float32")
    manager = CheckpointManager(folder / "run")
    state = TrainState.create({"adapter": adapter}, optax.identity())
    manager.save(3, state, about=About("a policy", model.special_ids, facts))
    manager.close()
    logits = jax.jit(model.logits)({**params, "adapter": adapter}, INPUTS, TARGETS)
    return folder, np.asarray(logits)


def theirs(model):
    with torch.no_grad():
        given = (torch.from_numpy(x.astype(np.int64)) for x in (INPUTS, TARGETS))
        return model(
            **dict(zip(("input_ids", "decoder_input_ids"), given, strict=True))
        ).logits.numpy()


def from_pretrained(folder):
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(str(folder)).eval()


def command(folder, to, format):
    options = [f"--from={folder / 'run'}", f"--to={folder / to}", f"--format={format}"]
    return convert.main(options)


def test_peft_would_put_it_on_the_base(exported):
    folder, logits = exported
    assert command(folder, "peft", "peft") == 0
    config = json.loads((folder / "peft" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["task_type"] == "SEQ_2_SEQ_LM"
    model = from_pretrained(config["base_model_name_or_path"])
    bare = theirs(model)
    tensors = load_file(folder / "peft" / "adapter_model.safetensors")
    assert len(tensors) == 2 * len(config["target_modules"]) > 0
    with torch.no_grad():
        for name in config["target_modules"]:
            a, b = (
                torch.from_numpy(tensors.pop(f"base_model.model.{name}.lora_{which}.weight"))
                for which in "AB"
            )
            assert a.shape[0] == b.shape[1] == config["r"]
            weight = model.get_submodule(name).weight
            weight += (config["lora_alpha"] / config["r"]) * (b @ a)
    assert not tensors
    np.testing.assert_allclose(theirs(model), logits, atol=2e-4, rtol=1e-4)
    assert np.abs(bare - logits).max() > 0.1


def test_peft_is_read_as_it_was_written(exported):
    folder, logits = exported
    if not (folder / "peft").exists():
        assert command(folder, "peft", "peft") == 0
    here, back = open_checkpoint(folder / "run"), open_checkpoint(folder / "peft")
    assert (back.format, back.base.path) == ("peft", folder / "hub")
    assert back.adapter.facts.scale == here.adapter.facts.scale == 2.5
    ours = trees.named_layers(here.adapter.leaves)
    assert back.adapter.leaves.keys() == ours.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(back.adapter.leaves[name].value(), leaf.value())
    assert convert.main([f"--from={folder / 'peft'}", f"--to={folder / 'again'}", *PEFT]) == 0
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (folder / "again" / file).read_bytes() == (folder / "peft" / file).read_bytes()
    # And it goes on as an adapter, of a network whose layers are stacked or not.
    model = LoRA(describe.language_model(back), rank=2, alpha=5.0, targets=TARGETED)
    params = load_parameters(model, back, make_partitioner(devices=jax.devices()[:1]))
    found = jax.jit(model.logits)(params, INPUTS, TARGETS)
    np.testing.assert_allclose(found, logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"peft_type": "IA3"}, "expected peft_type to be 'LORA', got 'IA3'"),
        ({"use_dora": True}, "expected use_dora to be False, got True"),
        ({"bias": "all"}, "expected bias to be 'none', got 'all'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save to be None, got \['lm_head'\]"),
        ({"rank_pattern": {"q": 3}}, "expected rank_pattern to be None, got {'q': 3}"),
        ({"init_lora_weights": "pissa"}, "expected init_lora_weights in .*, got 'pissa'"),
        ({"r": None}, "expected r, got None"),
        ({"base_model_name_or_path": "google/flan"}, "a folder that is here, got 'google/flan'"),
    ],
)
def test_what_is_no_plain_adapter_is_refused(tmp_path, change, complaint):
    plain = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(tmp_path),
        "r": 4,
        "lora_alpha": 6,
        "modules_to_save": [],
        "rank_pattern": {},
    }
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(plain))
    found = peft_files.read_config(epath.Path(tmp_path))
    assert peft_files.scale(found) == 1.5 and peft_files.scale({**found, "use_rslora": True}) == 3
    file.write_text(json.dumps(plain | change))
    with pytest.raises(ValueError, match=complaint):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"decoder.embed_tokens.lora_embedding_A": (2, 8)}, "1 of them others .*embedding_A"),
        ({f"{FIRST}.lora_A.weight": (2, 8)}, "one alone of .*layers_0/attention/query/kernel/a"),
        ({}, "got 0 tensors"),
    ],
)
def test_tensors_that_are_no_pairs_of_linear_maps_are_refused(tmp_path, tensors, complaint):
    arrays = {f"base_model.model.{n}": np.ones(shape, np.float32) for n, shape in tensors.items()}
    save_file(arrays, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=complaint):
        peft_files.read_weights(epath.Path(tmp_path), hub_t5.CONFIG)


def test_merged_it_is_a_plain_directory(exported):
    folder, logits = exported
    assert command(folder, "merged", "hugging_face") == 0
    found = theirs(from_pretrained(folder / "merged"))
    np.testing.assert_allclose(found, logits, atol=2e-4, rtol=1e-4)


def test_a_whole_model_is_no_adapter(exported, capsys):
    folder, _ = exported
    arguments = [f"--from={folder / 'hub'}", f"--to={folder / 'x'}", "--format=peft"]
    assert convert.main(arguments) == 1
    assert "expected an adapter for PEFT, got a whole model" in capsys.readouterr().err
    assert convert.main([*arguments, "--dtype=bfloat16"]) == 1
    assert "expected no option beside the format peft" in capsys.readouterr().err
