"""The features that T5X's pipeline makes of a task, beside our own layouts of it."""

import functools

import pytest

pytest.importorskip(
    "t5x.train", reason="needs T5X, which no package index holds", exc_type=ImportError
)

import numpy as np  # noqa: E402
from t5x import utils  # noqa: E402

from po_jax.data import layouts, seqio_source  # noqa: E402
from po_jax.t5x import converters  # noqa: E402
from tests.t5x import harness  # noqa: E402

LENGTHS = {"inputs": 6, "targets": 5}  # most prompts are longer
CONVERTERS = {
    "under_t5x_comparisons": (
        converters.ComparisonConverter,
        converters.comparison_lengths,
        layouts.Comparisons,
    ),
    "under_t5x_prompts": (converters.PromptConverter, converters.prompt_lengths, layouts.Prompts),
}


@pytest.mark.parametrize("keep_end", [False, True])
@pytest.mark.parametrize("task", CONVERTERS)
def test_features_are_those_of_our_layouts(task, keep_end):
    harness.register()
    converter, lengths, layout = CONVERTERS[task]
    config = utils.DatasetConfig(
        mixture_or_task_name=task,
        task_feature_lengths=lengths(LENGTHS, keep_end),
        split="validation",
        batch_size=37,
        shuffle=False,
        seed=0,
    )
    end = converters.kept_end(LENGTHS, keep_end)
    made = functools.partial(converter, keep_end=end)
    theirs = next(utils.get_dataset(config, 0, 1, made).as_numpy_iterator())
    layout = layout(LENGTHS, keep_end)
    corpus = seqio_source.read(task, "validation", layout)
    ours = layout(corpus, np.arange(37), np.zeros(37, bool))
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value, err_msg=name)
    assert (corpus.tokens["inputs"].lengths > LENGTHS["inputs"]).sum() > 20
    assert (theirs["prompt"] == 1).any(axis=1).all() == keep_end  # EOS


@pytest.mark.parametrize("converter", [made[0] for made in CONVERTERS.values()])
def test_packing_is_refused(converter):
    with pytest.raises(ValueError, match=r"expected pack=False, since completions belong"):
        converter(pack=True)


def test_a_text_that_the_task_lacks_is_named():
    harness.register()
    config = utils.DatasetConfig(
        mixture_or_task_name="under_t5x_prompts",
        task_feature_lengths=converters.prompt_lengths(LENGTHS),
        split="validation",
        batch_size=8,
        shuffle=False,
        seed=0,
    )
    converter = functools.partial(converters.PromptConverter, texts=("summary",))
    found = r"\['answers', 'inputs_pretokenized'\], got 'summary'"
    with pytest.raises(ValueError, match=f"TEXTS: expected texts of the task, {found}"):
        utils.get_dataset(config, 0, 1, converter)
