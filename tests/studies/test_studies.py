"""Points, figures and the page of a study, from reports whose numbers are known."""

import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np
import pytest

from po_jax.evaluation.plots import svg
from po_jax.studies.page import Line, study_page
from po_jax.studies.plots import Curves, Exact, Matrix
from po_jax.studies.results import Compared, Results


def figure(mean, half=0.1):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def met(seed, rates):
    """A report of policies that met: rates of the first of each pair; KL 4 for all."""
    names = list(dict.fromkeys(name for pair in rates for name in pair))
    win_rate = {name: {} for name in names}
    for (a, b), mean in rates.items():
        win_rate[a][b], win_rate[b][a] = figure(mean), figure(1 - mean)
    return Compared(
        {"SEED": seed},
        {name: {"method": name, "SEED": seed} for name in names if name != "start"},
        {
            "policies": names,
            "reference": "start",
            "win_rate": win_rate,
            "kl": {name: figure(4.0) for name in names},
            "length": {name: figure(7.0) for name in names},
            "regulariser": {},
            "along": {},
        },
    )


SEEDS = [
    met("1", {("a", "start"): 0.6, ("b", "start"): 0.7, ("a", "b"): 0.3}),
    met("2", {("a", "start"): 0.8, ("b", "start"): 0.5, ("a", "b"): 0.4}),
]


def along(options, stops):
    """A report of one run's checkpoints: step -> win rate, KL, regulariser."""
    run = [
        {
            "step": step,
            "policy": f"x@{step}",
            "win_rate": figure(rate),
            "kl": figure(kl),
            "regulariser": figure(half),
            "length": figure(3.0),
        }
        for step, (rate, kl, half) in stops.items()
    ]
    report = {"reference": "start", "along": {"x": run}}
    return Compared({}, {"x": options}, report)


RUNS = [
    along({"f": "IPO", "TAU": "0.1"}, {5: (0.6, 1.0, 1.1), 10: (0.7, 4.0, 3.0)}),
    along({"f": "IPO", "TAU": "0.2"}, {5: (0.55, 0.25, 0.2), 10: (0.5, 9.0, 5.0)}),
    along({"f": "DPO", "TAU": "0.1"}, {5: (0.65, 2.25, 2.0)}),
]
RESULTS = Results({"test": SEEDS, "along": RUNS})


def test_points_are_of_policies_and_of_checkpoints():
    points = RESULTS.points("test")
    assert [(p.policy, p.options["SEED"], p.value("win_rate")[0]) for p in points] == [
        ("a", "1", 0.6),
        ("b", "1", 0.7),
        ("a", "2", 0.8),
        ("b", "2", 0.5),
    ]
    assert [p.policy for p in RESULTS.points("test", {"method": "b"})] == ["b", "b"]
    assert RESULTS.points("nothing") == []
    first, second, *_ = RESULTS.points("along", {"TAU": "0.1"})
    assert (first.step, second.step) == (5, 10)
    assert second.value("sqrt_kl") == pytest.approx((2.0, np.sqrt(3.9), np.sqrt(4.1)))
    assert second.value("step") == (10.0,) * 3 and second.value("TAU") == (0.1,) * 3
    with pytest.raises(ValueError, match="expected a figure or an axis of numbers.*'f'"):
        second.value("f")


def test_the_matrix_is_the_mean_over_the_seeds_with_their_extremes():
    drawn = Matrix(stage="test")(RESULTS)
    (axes,) = drawn.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    means = np.asarray(axes.images[0].get_array(), float)
    a, b, start = (names.index(name) for name in ("a", "b", "start"))
    assert means[a, start] == pytest.approx(0.7) and means[start, a] == pytest.approx(0.3)
    assert means[a, b] == pytest.approx(0.35) and means[b, start] == pytest.approx(0.6)
    texts = {text.get_text() for text in axes.texts}
    assert "70%\n60 to 80" in texts and "35%\n30 to 40" in texts
    (axes,) = Matrix(stage="test", where={"SEED": "2"})(RESULTS).axes
    assert "80%" in {text.get_text() for text in axes.texts}
    assert Matrix(stage="nothing")(RESULTS) is None


def test_a_curve_is_of_one_run_in_the_order_of_its_steps():
    drawn = Curves(stage="along", x="kl", y="win_rate", colour="f", marker="TAU", peaks=True)(
        RESULTS
    )
    (axes,) = drawn.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) and line.get_linestyle() == "-"]
    runs = [line for line in lines if line.get_marker() != "*"]
    np.testing.assert_allclose(runs[0].get_xdata(), [1.0, 4.0])
    np.testing.assert_allclose(runs[0].get_ydata(), [60, 70])
    np.testing.assert_allclose(runs[1].get_xdata(), [0.25, 9.0])
    np.testing.assert_allclose(runs[2].get_ydata(), [65])
    assert runs[0].get_color() == runs[1].get_color() != runs[2].get_color()
    assert runs[0].get_marker() == runs[2].get_marker() != runs[1].get_marker()
    stars = [line for line in axes.lines if line.get_marker() == "*"]
    peaks = [(float(star.get_xdata()[0]), float(star.get_ydata()[0])) for star in stars]
    np.testing.assert_allclose(peaks, [(4.0, 70), (0.25, 55), (2.25, 65)])
    legend = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert legend == ["IPO, 0.1", "IPO, 0.2", "DPO, 0.1"]


def test_a_curve_over_an_axis_joins_what_is_alike_but_for_it():
    first = RUNS[0].report["along"]["x"][0]
    options = [{"BETA": "0.5", "m": "a"}, {"BETA": "0.0", "m": "a"}, {"BETA": "0.0", "m": "b"}]
    report = {
        "reference": "start",
        "along": {},
        "win_rate": {str(i): {"start": figure(0.5 + i / 10)} for i in range(3)},
        **{name: {str(i): first[name] for i in range(3)} for name in ("kl", "length")},
        "regulariser": {},
    }
    compared = Compared({}, {str(i): option for i, option in enumerate(options)}, report)
    drawn = Curves(stage="test", x="BETA", y="win_rate", colour="m")(Results({"test": [compared]}))
    lines = [line for line in drawn.axes[0].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(lines[0].get_xdata(), [0.0, 0.5])
    np.testing.assert_allclose(lines[0].get_ydata(), [60, 50])
    np.testing.assert_allclose(lines[1].get_ydata(), [70])


def test_no_two_of_many_methods_look_alike():
    first, many = RUNS[0].report["along"]["x"][0], [f"method {i}" for i in range(13)]
    report = {
        "reference": "start",
        "along": {},
        "win_rate": {name: {"start": figure(0.6)} for name in many},
        **{name: dict.fromkeys(many, first[name]) for name in ("kl", "length")},
        "regulariser": {},
    }
    compared = Compared({}, {name: {"m": name} for name in many}, report)
    drawn = Curves(stage="test", x="kl", y="win_rate", colour="m")(Results({"test": [compared]}))
    lines = [line for line in drawn.axes[0].lines if line.get_marker() != "None"]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(many)


def test_the_exact_labs_figure_stands_beside_the_runs():
    def figure(numbers):
        return Figure(figsize=(numbers.sum(), 2 if numbers.dtype == np.float64 else 1))

    drawn = Exact(study=lambda: np.asarray(jnp.ones(3)), figure=figure)(RESULTS)
    assert tuple(drawn.get_size_inches()) == (3.0, 2.0)


def test_the_page_says_what_is_done_and_what_is_not():
    lines = [
        Line("policies: <a>", "done", "python -m launch.train --gin.X='<1>'", "test/report.html"),
        Line("policies: b", "failed: no room", "python"),
    ]
    drawn = {"Win & lose": svg(Matrix(stage="test")(RESULTS))}
    page = study_page("T < U", "One.\n\nTwo.", drawn, RESULTS, lines)
    assert "<h1>T &lt; U</h1>\n<p>One.</p><p>Two.</p>" in page
    assert "1 of 2 cells are done" in page
    assert "<li><b>policies: b</b>: failed: no room</li>" in page
    assert '<a href="test/report.html">report</a>' in page
    assert "<figcaption>Win &amp; lose</figcaption>" in page
    assert "--gin.X=&#x27;&lt;1&gt;&#x27;" in page
    # One row a policy and seed, and one a checkpoint.
    assert page.count("<tr><td>") == 4 + 5
    assert "<td>IPO</td><td>0.1</td><td>10</td><td>70.0% <small>[60.0, 80.0]</small></td>" in page
