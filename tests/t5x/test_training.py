"""T5X's unmodified loop against our own: metrics and parameters of ten steps."""

import dataclasses
import functools

import pytest

pytest.importorskip(
    "t5x.train", reason="needs T5X, which no package index holds", exc_type=ImportError
)

import seqio  # noqa: E402

from po_jax import judges  # noqa: E402
from po_jax.judges import template  # noqa: E402
from po_jax.losses import objectives, pairwise  # noqa: E402
from po_jax.models import PolicyModel, SupervisedModel  # noqa: E402
from po_jax.sampling import Strategy  # noqa: E402
from po_jax.t5.language_model import T5LM  # noqa: E402
from po_jax.t5x import converters  # noqa: E402
from po_jax.t5x.start import partitioner_of  # noqa: E402
from po_jax.training import loop  # noqa: E402
from po_jax.training.offline_feed import DataFeed, OfflineFeed  # noqa: E402
from po_jax.training.online_feed import OnlineFeed  # noqa: E402
from tests.t5x import harness  # noqa: E402

STRATEGY = Strategy(max_length=harness.LENGTHS["targets"])


def contrastive(loss, tau):
    return functools.partial(objectives.contrastive, loss=loss, tau=tau)


def policy(language_model, objective, converter):
    return PolicyModel(
        language_model=language_model,
        objective=objective,
        optimizer_def=harness.optimizer_def(),
        feature_converter_cls=converter,
    )


def judge_model(kind, language_model):
    make = {
        judges.PreferenceModel: template.preference_template,
        judges.RewardModel: template.reward_template,
    }[kind]
    return kind(
        language_model=language_model,
        template=make(harness.VOCABULARY),
        optimizer_def=harness.optimizer_def(),
        feature_converter_cls=converters.ComparisonConverter,
    )


def trained(kind):
    """A judge whose opinions are strong enough to matter."""

    def make(partitioner, language_model, folder):
        checkpoint = harness.write_start(folder / "judge", language_model, seed=8, scale=4.0)
        return judges.trained_judge(judge_model(kind, language_model), checkpoint, partitioner)

    return make


def rouge(partitioner, language_model, folder):
    return judges.RougeJudge(harness.VOCABULARY)


NASH = functools.partial(objectives.nash_md, tau=0.1)
OFFLINE = {"ipo": contrastive(pairwise.ipo, 0.1), "dpo": contrastive(pairwise.dpo, 0.1)}
JUDGES = {"preference_model": judges.PreferenceModel, "reward_model": judges.RewardModel}
# The objective, the judge, the weights of the reference and what else tells the algorithm.
ONLINE = {
    "online_ipo": (OFFLINE["ipo"], trained(judges.PreferenceModel), (0.0, 0.0), {}),
    "ipo_md": (OFFLINE["ipo"], trained(judges.PreferenceModel), (0.125, 0.125), {}),
    "ipo_md_rouge": (OFFLINE["ipo"], rouge, (0.125, lambda step: 0.25 / (1.0 + step)), {}),
    "nash_md_pg": (NASH, trained(judges.PreferenceModel), (0.0, 0.125), {}),
    "rlhf": (
        functools.partial(objectives.rlhf, tau=0.1),
        trained(judges.RewardModel),
        (0.0, 0.0),
        {},
    ),
    "nash_ema_pg": (NASH, rouge, (0.0, 1.0), {"against_average": True}),
}


def make_case(name, folder, partitioner, config=harness.CONFIG, micro_batches=1):
    """What both loops train under a name."""
    harness.register()
    language_model = T5LM(config)
    start = harness.write_start(folder / "start", language_model)
    updates = loop.Updates(micro_batches=micro_batches)
    case = functools.partial(harness.Case, start=start, updates=updates)
    if name == "sft":
        model = SupervisedModel(
            language_model=language_model,
            z_loss=1e-4,
            optimizer_def=harness.optimizer_def(),
            feature_converter_cls=functools.partial(seqio.EncDecFeatureConverter, pack=False),
        )
        return case(model, "under_t5x_sft", DataFeed, False)
    if name in JUDGES:
        model = judge_model(JUDGES[name], language_model)
        return case(model, "under_t5x_comparisons", DataFeed, False)
    if name in OFFLINE:
        model = policy(language_model, OFFLINE[name], converters.ComparisonConverter)
        return case(model, "under_t5x_comparisons", OfflineFeed, True)
    objective, make_judge, betas, options = ONLINE[name]
    if options:
        updates = dataclasses.replace(updates, average_decay=0.5)
    texts = ("inputs", "answers") if make_judge is rouge else ()
    converter = functools.partial(converters.PromptConverter, texts=texts, text_bytes=64)
    feed = functools.partial(
        OnlineFeed,
        annotator=make_judge(partitioner, language_model, folder),
        strategy=STRATEGY,
        betas=betas,
        **options,
    )
    model = policy(language_model, objective, converter)
    return case(model, "under_t5x_prompts", feed, True, updates=updates)


def compare(name, folder, mesh=(1, 1), tolerance=5e-6, **options):
    """Trains by both loops; the largest differences of metrics and parameters."""
    t5x = harness.Mesh(*mesh)
    partitioner = partitioner_of(t5x)
    case = make_case(name, folder, partitioner, **options)
    theirs, state = case.by_t5x(folder / "t5x", t5x)
    ours, other = case.by_us(folder / "ours", partitioner)
    metrics = harness.assert_same_metrics(theirs, ours, tolerance)
    parameters = harness.difference(state.params, other.params)
    print(f"{name} {mesh} {options}: metrics {metrics:.1e}, parameters {parameters:.1e}")
    assert parameters <= tolerance
    assert harness.difference(state.params, other.params) < harness.difference(
        state.params, T5LM(case.model.language_model.config).init(harness.jax.random.key(3))
    )
    return state, other


@pytest.mark.parametrize("name", ["sft", *JUDGES, *OFFLINE, *ONLINE])
def test_ten_steps_are_those_of_our_loop(name, tmp_path):
    state, other = compare(name, tmp_path)
    if name == "nash_ema_pg":
        average = state.flax_mutables["average"]
        assert harness.difference(average, other.average) < 5e-6


@pytest.mark.parametrize("name", ["sft", "preference_model", "ipo", "ipo_md"])
def test_micro_batches_are_averaged(name, tmp_path):
    compare(name, tmp_path, micro_batches=4)


@pytest.mark.parametrize("mesh", [(1, 2), (2, 2)])
@pytest.mark.parametrize("name", ["sft", "ipo", "ipo_md"])
def test_meshes(name, mesh, tmp_path):
    compare(name, tmp_path, mesh)


@pytest.mark.parametrize("name", ["ipo", "ipo_md"])
def test_scanned_layers(name, tmp_path):
    compare(name, tmp_path, config=harness.SCANNED)


def test_bfloat16(tmp_path):
    compare("ipo", tmp_path, tolerance=2e-2, config=harness.BFLOAT16)


def test_dropout_moves_the_policy_from_its_reference(tmp_path):
    config = dataclasses.replace(harness.CONFIG, dropout_rate=0.5)
    with pytest.raises(ValueError, match=r"DROPOUT_RATE must be 0"):
        mesh = harness.Mesh()
        case = make_case("ipo", tmp_path, partitioner_of(mesh), config=config)
        case.by_t5x(tmp_path / "t5x", mesh, steps=1)


def test_packing_is_refused():
    for converter in (converters.ComparisonConverter, converters.PromptConverter):
        with pytest.raises(ValueError, match=r"expected pack=False, since completions belong"):
            converter(pack=True)
