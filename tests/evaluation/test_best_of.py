"""The best of n: who is chosen, and what it costs in KL."""

import jax
import numpy as np
import pytest

from po_jax.evaluation.best_of import kl_bound
from po_jax.evaluation.page import html_page
from po_jax.evaluation.samples import offline_regulariser
from po_jax.evaluation.side_by_side import SideBySide
from po_jax.judges import CallableJudge, Judgement, ask_about_all, best_and_worst
from po_jax.types import Rollout
from tests.evaluation import tiny
from tests.vocabularies import Numbers

WORDS = Numbers()


def longer(prompt, first, second):
    return 0.5 + 0.5 * np.sign(len(first) - len(second))


class Table:
    """P(i > j) by a table, between completions of one token; favours the first place."""

    name = "table"
    antisymmetric = False

    def __init__(self, preference, favour):
        self.preference, self.favour = preference, favour

    def begin(self, pairs):
        first, second = pairs.completion[:, 0, 0], pairs.completion[:, 1, 0]
        return lambda: Judgement(self.preference[first, second] + self.favour)


def test_all_meet_all_in_both_orders():
    k, batch = 5, 3
    random = np.random.default_rng(0)
    upper = np.triu(random.uniform(0.2, 0.8, size=(k, k)), 1)
    preference = upper + np.tril(1.0 - upper.T, -1) + 0.5 * np.eye(k)
    order = np.stack([random.permutation(k) for _ in range(batch)])
    found = ask_about_all(
        Table(preference, 0.125),
        np.zeros((batch, 2), int),
        order[:, :, None],
        np.ones((batch, k, 1), bool),
    )()
    expected = preference[order[:, :, None], order[:, None, :]]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    best, worst = best_and_worst(found)
    wins = preference.sum(axis=1)
    np.testing.assert_array_equal(order[np.arange(batch), best], wins.argmax())
    np.testing.assert_array_equal(order[np.arange(batch), worst], wins.argmin())


@pytest.mark.parametrize("k", [2, 3, 7])
def test_best_and_worst_are_two_even_where_all_are_alike(k):
    best, worst = best_and_worst(np.full((2, k, k), 0.5))
    assert (best != worst).all()


def test_the_kl_of_the_best_of_n_is_below_its_bound_and_near_it_where_many_answers_are_rare():
    for n in (2, 3, 7):
        for atoms, near in ((3, None), (20_000, 1e-2)):
            p = np.random.default_rng(n).dirichlet(np.ones(atoms))
            # Atoms in the order of a reward without ties: the best of n is the largest.
            below = np.concatenate([[0.0], np.minimum(p.cumsum(), 1.0)])
            best = np.diff(below**n)
            held = best > 0
            kl = float(np.sum(best[held] * np.log(best[held] / p[held])))
            bound = kl_bound(n, prompts=5)
            assert kl < bound.mean and bound.n == 5 and bound.standard_error == 0.0
            if near:
                assert kl == pytest.approx(bound.mean, abs=near)


def test_the_best_of_the_references_completions_is_a_policy_of_its_own(tmp_path):
    policies = tiny.write(tmp_path, mu=0, pi=1)

    def report(**options):
        return SideBySide(
            sampler=tiny.sampler(),
            policies=policies,
            reference="mu",
            prompts=tiny.prompts(),
            judge=CallableJudge(longer, WORDS, antisymmetric=True),
            vocabulary=WORDS,
            **options,
        ).report()

    found = report(best_of={"best of 2": 2, "best of 7": 7})
    assert found["policies"] == ["mu", "pi", "best of 2", "best of 7"]
    # The longest of seven is longer than the longest of two, and than one.
    length = {name: value["mean"] for name, value in found["length"].items()}
    assert length["mu"] <= length["best of 2"] <= length["best of 7"]
    assert found["win_rate"]["best of 7"]["mu"]["mean"] > 0.5
    assert found["kl"]["best of 7"]["mean"] == pytest.approx(np.log(7) - 6 / 7)
    assert "which it does not exceed" in html_page(found, {}, "T")
    shorter = CallableJudge(lambda x, a, b: longer(x, b, a), WORDS, antisymmetric=True)
    chosen = report(best_of={"best of 7": 7}, best_of_judge=shorter)
    assert chosen["length"]["best of 7"]["mean"] < length["best of 7"]
    assert chosen["win_rate"]["best of 7"]["mu"]["mean"] < 0.5
    for bad in ({"mu": 4}, {"best": 1}, {"best": 0}):
        with pytest.raises(ValueError, match="best_of: expected names of their own and 2"):
            report(best_of=bad)


def test_the_offline_regulariser_is_the_variance_of_the_log_ratio_under_mu():
    # Seven answers of one token; by many drawn pairs, p < 1e-4 to miss by four standard errors.
    random = np.random.default_rng(0)
    log_mu = jax.nn.log_softmax(random.normal(size=7))
    log_pi = jax.nn.log_softmax(random.normal(size=7))
    drawn = random.choice(7, size=(5000, 2, 1), p=np.exp(log_mu) / np.exp(log_mu).sum())
    rollout = Rollout(None, drawn, np.ones(drawn.shape, bool), log_pi[drawn], log_mu[drawn], None)
    found = offline_regulariser(rollout)
    ratio, mu = np.asarray(log_pi - log_mu), np.exp(log_mu)
    variance = float(np.sum(mu * ratio**2) - np.sum(mu * ratio) ** 2)
    assert abs(found.mean - variance) < 4 * found.standard_error < 0.2 * variance
    with pytest.raises(ValueError, match="expected a rollout with log mu"):
        offline_regulariser(rollout.replace(partner_logprob=None))
