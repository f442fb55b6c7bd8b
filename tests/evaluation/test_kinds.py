"""What is no policy is not sampled from, and no policy is compared with itself."""

import pytest

from po_jax.checkpoints.about import About
from po_jax.evaluation.completions import Completer
from po_jax.evaluation.labelling import Labelling
from po_jax.evaluation.side_by_side import SideBySide
from po_jax.judges import CallableJudge
from tests.evaluation import tiny
from tests.vocabularies import Numbers

WORDS = Numbers()
JUDGE = CallableJudge(lambda *texts: 0.5, WORDS)
REFUSED = "judge/checkpoint_3: expected the checkpoint of a policy or an SFT model, got .* reward"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    judge = tiny.write(folder, About(kind="a trained reward model"), judge=0)
    return tiny.write(folder, About(kind="an SFT model"), sft=1) | judge


def side_by_side(**policies):
    return SideBySide(
        sampler=tiny.sampler(),
        policies=policies,
        reference="sft",
        prompts=tiny.prompts(),
        judge=JUDGE,
        vocabulary=WORDS,
    )


def test_a_judge_is_refused_wherever_a_policy_is_wanted(paths):
    common = {"sampler": tiny.sampler(), "vocabulary": WORDS}
    completer = Completer(**common, prompt_length=3, checkpoint=paths["judge"])
    mixture = Completer(
        **common,
        prompt_length=3,
        checkpoint=paths["sft"],
        reference_checkpoint=paths["judge"],
        beta=0.5,
    )
    labelling = Labelling(**common, checkpoint=paths["judge"], prompts=tiny.prompts(), judge=JUDGE)
    for refused in (
        lambda: completer.of_texts(["5 6"]),
        lambda: mixture.of_texts(["5 6"]),
        lambda: next(labelling.records()),
        lambda: side_by_side(sft=paths["sft"], pi=paths["judge"]),
    ):
        with pytest.raises(ValueError, match=REFUSED):
            refused()


def test_two_policies_of_one_checkpoint(paths, tmp_path):
    (tmp_path / "link").symlink_to(paths["sft"])
    sft = paths["sft"]
    for same in (sft, f"{sft}/", f"{sft}/checkpoint_3", f"{sft}/../sft", str(tmp_path / "link")):
        with pytest.raises(ValueError, match="a checkpoint for each policy, got .* 'sft' and 'pi'"):
            side_by_side(sft=sft, pi=same)
