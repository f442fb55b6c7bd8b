"""Which kind of model a checkpoint is of, and its special ids: recorded, held against its use."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import optax
import pytest

from po_jax.checkpoints import convert
from po_jax.checkpoints.about import POLICIES, About
from po_jax.checkpoints.convert import Target
from po_jax.checkpoints.load import load_parameters, open_checkpoint
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.judges import PreferenceModel, RewardModel, trained_judge
from po_jax.judges.template import Template
from po_jax.language_model import SpecialIds
from po_jax.lora import LoRA
from po_jax.models.policy import PolicyModel
from po_jax.models.supervised import SupervisedModel
from po_jax.partitioning import make_partitioner
from po_jax.t5.language_model import T5LM
from po_jax.t5gemma.config import StackConfig, T5GemmaConfig
from po_jax.t5gemma.language_model import T5GemmaLM
from po_jax.training.start import Start
from tests.checkpoints.conftest import CONFIG

LM = T5LM(CONFIG)
TEMPLATE = Template(pieces=((5,), (6,), (7,)), verdicts=(3, 4))
MODELS = {
    "sft": SupervisedModel(language_model=LM),
    "policy": PolicyModel(language_model=LM, objective=lambda policy, batch: policy[:, 0]),
    "preference": PreferenceModel(language_model=LM, template=TEMPLATE),
    "reward": RewardModel(language_model=LM, template=TEMPLATE),
    "decoded": RewardModel(language_model=LM, template=dataclasses.replace(TEMPLATE, decoded=True)),
}


@pytest.fixture(scope="module")
def partitioner():
    return make_partitioner(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run's folder for each model, and one that does not say what it is."""
    folder = tmp_path_factory.mktemp("runs")
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state_like())
    for name, about in {**{name: m.about() for name, m in MODELS.items()}, "old": None}.items():
        manager = CheckpointManager(folder / name)
        manager.save(3, state, about=about)
        manager.close()
    return folder


def test_a_checkpoint_says_what_it_is(runs):
    kinds = {name: open_checkpoint(runs / name).about.kind for name in [*MODELS, "old"]}
    assert kinds == {
        "sft": "an SFT model",
        "policy": "a policy",
        "preference": "a trained preference model",
        "reward": "a trained reward model",
        "decoded": "a trained reward model whose decoder reads the answers",
        "old": None,
    }
    # The item inside the checkpoint's folder is the same checkpoint.
    inside = open_checkpoint(runs / "reward" / "checkpoint_3" / "state")
    assert inside.about == MODELS["reward"].about()


@pytest.mark.parametrize("format", convert.FORMATS)
@pytest.mark.parametrize("name", ["reward", "old"])
def test_a_conversion_keeps_what_it_is(runs, tmp_path, name, format):
    convert.plan(runs / name, Target(format=format)).write(tmp_path / "out")
    convert.plan(tmp_path / "out", Target(format="t5x")).write(tmp_path / "back")
    kinds = [open_checkpoint(tmp_path / folder).about.kind for folder in ("out", "back")]
    assert kinds == ["a trained reward model" if name == "reward" else None] * 2


@pytest.mark.parametrize("name", ["preference", "reward"])
def test_a_judge_is_no_policy(runs, partitioner, name):
    kind = MODELS[name].kind
    message = (
        f"checkpoint_3: expected the checkpoint of a policy or an SFT model, got that of {kind}"
    )
    with pytest.raises(ValueError, match=message):
        load_parameters(LM, runs / name, partitioner, kinds=POLICIES)
    with pytest.raises(ValueError, match=message):
        start(MODELS["policy"], runs / name, partitioner)


@pytest.mark.parametrize("name", ["sft", "policy", "old"])
def test_policies_and_what_does_not_say_are_taken(runs, partitioner, name):
    load_parameters(LM, runs / name, partitioner, kinds=POLICIES)
    start(MODELS["reward"], runs / name, partitioner)  # Judges are made of policies.


@pytest.mark.parametrize(
    ("model", "checkpoint"),
    [
        ("reward", "sft"),
        ("preference", "sft"),
        ("preference", "policy"),
        ("preference", "reward"),
        ("reward", "preference"),
        ("reward", "decoded"),
        ("decoded", "reward"),
    ],
)
def test_another_kind_is_no_judge(runs, partitioner, model, checkpoint):
    wanted, found = MODELS[model].kind, MODELS[checkpoint].kind
    with pytest.raises(
        ValueError, match=f"expected the checkpoint of {wanted}, got that of {found}"
    ):
        trained_judge(MODELS[model], str(runs / checkpoint), partitioner)


@pytest.mark.parametrize("checkpoint", ["preference", "old"])
def test_a_judge_of_the_kind_is_taken(runs, partitioner, checkpoint):
    judge = trained_judge(MODELS["preference"], str(runs / checkpoint), partitioner)
    assert judge.name == "a trained preference model"


def test_a_run_goes_on_as_what_it_was(runs, partitioner):
    manager = CheckpointManager(runs / "sft")
    with pytest.raises(ValueError, match="expected the checkpoint of a policy, got that of an SFT"):
        manager.restore(state_like(), MODELS["policy"].about())
    assert manager.restore(state_like(), MODELS["sft"].about())[0] == 3
    assert manager.steps == [3]  # Nothing was set aside.
    manager.close()


def state_like():
    return {"params": jax.eval_shape(LM.init, jax.random.key(0))}


def start(model, path, partitioner):
    return Start(
        model,
        optax.sgd(0.1),
        partitioner,
        jax.random.key(0),
        average=False,
        checkpoint_path=str(path),
    )


IDS = SpecialIds(pad=0, eos=2, start=3)


def with_ids(small, folder):
    folder.mkdir()
    for file in small.directory.iterdir():
        file.copy(folder / file.name)
    config = json.loads((folder / "config.json").read_text())
    config |= {"eos_token_id": 2, "decoder_start_token_id": 3}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()  # Old directories have none.
    return folder


def test_other_special_ids_are_refused_where_the_model_has_t5s(small, tmp_path, partitioner):
    folder = with_ids(small, tmp_path / "other")
    assert open_checkpoint(folder).about.special_ids == IDS
    message = r"expected the language model's SpecialIds\(pad=0, eos=1, start=0\), got .*eos=2"
    with pytest.raises(ValueError, match=message):
        load_parameters(LM, folder, partitioner)
    with pytest.raises(ValueError, match=message):
        start(MODELS["policy"], folder, partitioner)
    load_parameters(T5LM(CONFIG, special_ids=IDS), folder, partitioner)


def test_other_special_ids_come_through_training_and_conversion(small, tmp_path):
    source = with_ids(small, tmp_path / "other")
    convert.plan(source, Target(format="hugging_face")).write(tmp_path / "copy")
    model = dataclasses.replace(MODELS["sft"], language_model=T5LM(CONFIG, special_ids=IDS))
    manager = CheckpointManager(tmp_path / "run")
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state_like())
    manager.save(1, params, about=model.about())
    manager.close()
    convert.plan(tmp_path / "run", Target(format="hugging_face")).write(tmp_path / "trained")
    for name in ("copy", "trained"):
        for file in ("config.json", "generation_config.json"):
            content = json.loads((tmp_path / name / file).read_text())
            ids = [content[f"{x}_token_id"] for x in ("pad", "eos", "decoder_start")]
            assert ids == [0, 2, 3], (name, file)
        assert open_checkpoint(tmp_path / name).about.special_ids == IDS


OPTIONS = ("num_heads", "head_dim", "mlp_activations", "relative_max_distance")
OF_THE_SAME_SHAPES = [
    {"num_heads": CONFIG.head_dim, "head_dim": CONFIG.num_heads},
    {"relative_max_distance": 64},
    {"mlp_activations": ("silu", *CONFIG.mlp_activations[1:])},
]


@pytest.mark.parametrize("change", OF_THE_SAME_SHAPES)
def test_another_network_of_the_same_shapes_is_refused(small, tmp_path, partitioner, change):
    """From a directory of Hugging Face, from one that was converted, and from a run's own."""
    other = T5LM(dataclasses.replace(CONFIG, **change))
    convert.plan(small.directory, Target(format="t5x")).write(tmp_path / "t5x")
    manager = CheckpointManager(tmp_path / "run")
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state_like())
    manager.save(1, params, about=MODELS["policy"].about())
    manager.wait()
    uses = [
        *(
            functools.partial(load_parameters, other, source, partitioner)
            for source in (small.directory, tmp_path / "t5x", tmp_path / "run")
        ),
        lambda: start(model, small.directory, partitioner),
        lambda: manager.restore(state_like(), model.about()),
    ]
    model = dataclasses.replace(MODELS["policy"], language_model=other)
    wanted, found = (
        ", ".join(
            f"{n} {json.loads(json.dumps(getattr(network.config, n)))}"
            for n in OPTIONS
            if n in change
        )
        for network in (other, LM)
    )
    for use in uses:
        with pytest.raises(ValueError, match="no shape would tell") as error:
            use()
        assert f"with {wanted}, got one with {found}:" in str(error.value)
    assert manager.steps == [1]  # Nothing was set aside.
    manager.close()
    load_parameters(LM, tmp_path / "run", partitioner)


GEMMA_STACK = StackConfig(
    emb_dim=10,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_dim=14,
    num_layers=3,
    query_scalar=9,
    sliding_window=5,
)


def gemma(config):
    return T5GemmaLM(config, special_ids=IDS)


@pytest.mark.parametrize(
    "change",
    [
        {"sliding_window": 7},
        {"sliding_layers": (True, True, False)},
        {"rope_theta": 1e6},
        {"full_rope_theta": 1e6},
        {"full_rope_factor": 8.0},
        {"query_scalar": 6},
        {"attention_softcap": None},
    ],
)
def test_another_t5gemma_of_the_same_shapes_is_refused(change):
    config = T5GemmaConfig(vocab_size=64, encoder=GEMMA_STACK, decoder=GEMMA_STACK)
    known = About.from_json(json.loads(json.dumps(About.of(gemma(config)).to_json())))
    same = dataclasses.replace(GEMMA_STACK, full_rope_theta=GEMMA_STACK.rope_theta)
    alike = dataclasses.replace(config, encoder=same, dtype="bfloat16", scan_layers=True)
    known.require("here", (), About.of(gemma(alike)))
    other = dataclasses.replace(GEMMA_STACK, **change)
    for stack in ("encoder", "decoder"):
        model = gemma(dataclasses.replace(config, **{stack: other}))
        with pytest.raises(ValueError, match=rf"here: expected the network .* {stack}\."):
            known.require("here", (), About.of(model))
    capped = dataclasses.replace(config, final_softcap=None)
    with pytest.raises(ValueError, match="with final_softcap None, got one with final_softcap 30"):
        known.require("here", (), About.of(LoRA(gemma(capped), rank=2)))


def test_what_other_programs_wrote_beside_the_arrays_says_nothing():
    assert About.from_json({"version": 3}) == About()
