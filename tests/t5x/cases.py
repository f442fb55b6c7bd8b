"""What both loops train, by name: each kind of model and of algorithm."""

import dataclasses
import functools

import seqio

from po_jax import judges
from po_jax.judges import template
from po_jax.losses import objectives, pairwise
from po_jax.models import PolicyModel, SupervisedModel
from po_jax.sampling import Strategy
from po_jax.t5.language_model import T5LM
from po_jax.t5x import converters
from po_jax.training import loop
from po_jax.training.offline_feed import DataFeed, OfflineFeed
from po_jax.training.online_feed import OnlineFeed
from tests.t5x import harness

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
    # Where a judge is undecided, the gradient is what rounding leaves of a margin near 0.
    "online_ipo": (OFFLINE["ipo"], trained(judges.RewardModel), (0.0, 0.0), {}),
    "ipo_md": (OFFLINE["ipo"], trained(judges.RewardModel), (0.125, 0.125), {}),
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
