"""What leaves the house of an adapter, held against `transformers`: merged, and in PEFT's format.

PEFT itself is not needed: what it computes, W x + (lora_alpha / r) B A x, is done here by hand, to
the modules that its files name.
"""

import dataclasses
import json

from etils import epath
import jax
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from launch import convert
from po_jax.checkpoints import adapters, describe
from po_jax.checkpoints.about import About, AdapterFacts
from po_jax.checkpoints.load import load_parameters, open_checkpoint
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.lora import LoRA
from po_jax.partitioning import make_partitioner
from po_jax.training.state import TrainState
from tests.launch import hub_t5

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

INPUTS = np.random.default_rng(0).integers(2, 900, (2, 7)).astype(np.int32)
TARGETS = np.random.default_rng(1).integers(2, 900, (2, 3)).astype(np.int32)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="named"),
        pytest.param(True, id="scanned", marks=pytest.mark.slow),
    ],
)
def exported(request, tmp_path_factory):
    """A T5 as `transformers` reads it, an adapter on it that went somewhere, and its logits."""
    folder = epath.Path(tmp_path_factory.mktemp("peft"))
    hub_t5.write(folder / "hub")
    base = open_checkpoint(folder / "hub")
    network = describe.language_model(base)
    if request.param:
        config = describe.with_layers(network.config, scanned=True, family="t5")
        network = dataclasses.replace(network, config=config)
    model = LoRA(network, rank=2, alpha=5.0, targets=".*(query|wo|out)/kernel")
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
    return transformers.T5ForConditionalGeneration.from_pretrained(str(folder)).eval()


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
