"""The report as JSON, as a page and as figures, from three policies with known outcomes."""

from html.parser import HTMLParser
from itertools import combinations
import json

from matplotlib.image import imread
from matplotlib.text import Text
import numpy as np
import pytest

from po_jax.evaluation import plots
from po_jax.evaluation.intervals import mean_interval
from po_jax.evaluation.page import html_page
from po_jax.evaluation.prompts import Prompts
from po_jax.evaluation.report import Findings, build_report, write_json
from po_jax.evaluation.samples import Samples, sequence_kl
from po_jax.judges import CallRecord
from po_jax.judges.rouge import rouge

PROMPTS = 10
TEXTS = [f"a text <b>number</b> {i} & more" for i in range(PROMPTS)]


def policy(words: str, ratio: float) -> Samples:
    completion = np.tile(np.array([[3, 4, 1, 0]]), (PROMPTS, 1))
    return Samples(
        completion,
        completion > 0,
        (words,) * PROMPTS,
        np.ones(PROMPTS, bool),
        np.linspace(-3.0, -2.0, PROMPTS) + ratio,
        np.linspace(-3.0, -2.0, PROMPTS),
    )


def samples() -> dict[str, Samples]:
    return {
        "sft": policy("an answer", 0.0),
        "ipo_md": policy("a <script>better</script> answer", 1.5),
        "online_ipo": policy("another answer", 0.5),
    }


def matches() -> dict[tuple[str, str], np.ndarray]:
    """The last policy always loses; of the other two, the start wins at one prompt in five."""
    start_wins = np.arange(PROMPTS) % 5 == 0
    return {
        ("sft", "ipo_md"): np.stack([start_wins, start_wins], axis=1).astype(float),
        ("sft", "online_ipo"): np.ones((PROMPTS, 2)),
        ("ipo_md", "online_ipo"): np.ones((PROMPTS, 2)),
    }


def findings(**others) -> Findings:
    """What is known of the three policies at the least, and whatever else is given."""
    prompts = Prompts(np.ones((PROMPTS, 2), int), {"inputs": TEXTS})
    known = {"prompts": prompts, "samples": samples(), "matches": matches()}
    return Findings(**{**known, "reference": "sft", "judge": "a judge", **others})


def answered() -> Prompts:
    answers = [["an answer", "<i>another</i>"]] * PROMPTS
    return Prompts(np.ones((PROMPTS, 2), int), {"inputs": TEXTS, "answers": answers})


@pytest.fixture
def report():
    scores = {name: rouge(x.text, answered().answers) for name, x in samples().items()}
    return build_report(
        findings(
            prompts=answered(),
            kl={name: sequence_kl(sample) for name, sample in samples().items()},
            rouge={
                name: {measure: mean_interval(value) for measure, value in own.items()}
                for name, own in scores.items()
            },
            metrics={name: {"accuracy": 0.25 * i} for i, name in enumerate(samples())},
        ),
        examples=5,
        config={"tau": 0.1, "gin": "A = 1\nB = 2\n"},
    )


def test_json_holds_every_figure(report, tmp_path):
    write_json(report, tmp_path / "report.json")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    read = json.loads((tmp_path / "report.json").read_text())
    rate = read["win_rate"]["ipo_md"]["sft"]
    assert rate["mean"] == pytest.approx(0.8)
    assert rate["low"] < 0.8 < rate["high"]
    assert rate["n"] == PROMPTS
    assert read["win_rate"]["sft"]["ipo_md"]["mean"] == pytest.approx(0.2)
    assert read["win_rate"]["online_ipo"]["sft"]["mean"] == 0.0
    assert read["kl"]["ipo_md"]["mean"] == pytest.approx(1.5)
    assert read["kl"]["ipo_md"]["standard_error"] == pytest.approx(0.0, abs=1e-12)
    assert read["rouge"]["sft"]["rougeL"]["mean"] == 100.0
    # "answer" of the two words of "an answer", or of "another answer".
    assert read["rouge"]["online_ipo"]["rouge1"]["mean"] == pytest.approx(50.0)
    assert read["metrics"]["ipo_md"] == {"accuracy": 0.25}
    assert read["judge"] == {"name": "a judge", "position_bias": 0.0, "flips": 0.0}
    # All answers have three tokens: that is the win rate, and a regression has nothing to go by.
    assert read["by_length"]["ipo_md"] == {
        "nearly_equal": read["win_rate"]["ipo_md"]["sft"],
        "length_controlled": None,
    }
    assert read["length"]["sft"]["mean"] == 3.0
    assert read["eos_rate"] == {"sft": 1.0, "ipo_md": 1.0, "online_ipo": 1.0}
    assert read["config"] == {"tau": 0.1, "gin": "A = 1\nB = 2\n"}


def test_examples_are_spaced_evenly_and_say_who_won(report):
    assert [example["prompt"] for example in report["examples"]] == TEXTS[::2]
    assert [example["preference"]["ipo_md"] for example in report["examples"]] == [0, 1, 1, 1, 1]
    assert "sft" not in report["examples"][0]["preference"]
    assert report["examples"][0]["answers"] == ["an answer", "<i>another</i>"]


def test_answers_kl_rouge_and_metrics_are_optional():
    report = build_report(findings())
    assert report["kl"] == {}
    assert "rouge" not in report and "metrics" not in report
    assert report["examples"][0]["answers"] == []
    assert set(plots.figures(report)) == {"win_rate_matrix", "win_rates_over_reference"}
    assert "<h1>plain</h1>" in html_page(report, {}, "plain")


def test_bad_input_is_named(report, tmp_path):
    with pytest.raises(ValueError, match=r"one of \['sft', 'ipo_md', 'online_ipo'\], got 'mu'"):
        findings(reference="mu")
    report["eos_rate"]["sft"] = np.nan
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(report, tmp_path / "report.json")
    assert not list(tmp_path.iterdir())


class Page(HTMLParser):
    """Collects tags and text; fails on tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        self.sources += [value for key, value in attrs if key in {"src", "href"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_stands_alone_and_escapes_what_models_wrote(report):
    drawn = {name: plots.svg(figure) for name, figure in plots.figures(report).items()}
    text = html_page(report, drawn, "sft & others")
    page = Page()
    page.feed(text)
    assert not page.open
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert "http" not in text and "@import" not in text and "url(" not in text
    assert "<script>" not in text
    for shown in (
        *TEXTS[::2],
        "a <script>better</script> answer",
        "sft & others",
        "80.0%",
        "<i>another</i>",
        "accuracy",
        "0.25",
        "A = 1\nB = 2\n",
    ):
        assert shown in page.text


def test_the_page_says_how_the_judge_was_asked():
    """A judge that has no order by construction has no bias, and none is made up for it."""
    once = {pair: preference[:, :1] for pair, preference in matches().items()}
    for played, bias, said in (
        (matches(), 0.0, "It was asked in both orders, and favours neither place."),
        (leaning(0.25), 0.25, "favours the completion it reads first by +25.0 points; averaging"),
        (leaning(-1e-4), -1e-4, "asked in both orders, and favours neither place."),
        (once, None, "The place of an answer does not matter to it."),
    ):
        report = build_report(findings(matches=played))
        assert report["judge"]["position_bias"] == pytest.approx(bias)
        assert said in " ".join(html_page(report, {}, "plain").split())


def leaning(bias):
    """Ties, but for what the place does."""
    return {pair: np.full((PROMPTS, 2), (0.5 + bias, 0.5 - bias)) for pair in matches()}


def test_the_headline_says_of_how_many_it_is_the_best(report):
    page = html_page(report, {}, "plain")
    assert "<b>ipo_md</b>, the best of 2, is not clearly better than <b>sft</b>" in page
    assert "chosen by these very prompts" in page
    names = ("sft", "ipo_md")
    two = {name: samples()[name] for name in names}
    page = html_page(build_report(findings(samples=two, matches={names: matches()[names]})), {}, "")
    assert (
        "<b>ipo_md</b> is not clearly better than <b>sft</b>" in page and "very prompts" not in page
    )


def test_no_figure_is_a_negative_nothing(report):
    for name in report["policies"]:
        report["kl"][name]["mean"] = -1e-9
        report["metrics"][name]["accuracy"] = -0.0
    page = html_page(report, {}, "plain")
    assert "KL of 0.00 nats" in page and "0.00 <small>" in page
    assert ">-0" not in page and " -0" not in page.split("</style>")[1]


def test_what_became_of_the_calls_is_told(report):
    assert "calls" not in report["judge"]
    record = CallRecord(questions=40, unanswered={"timed <out>": 1}, calls=40, seconds=8.0)
    called = build_report(findings(calls=record))
    assert called["judge"]["calls"]["unanswered"] == {"timed <out>": 1}
    page = Page()
    page.feed(html_page(called, {}, "plain"))
    assert f"Calls: {record}." in page.text and "39 (97.5%) answered" in page.text


@pytest.mark.parametrize("name", ["cost $^$", r"$\frac$", "$x$", "100$", "_hidden", r"\$5 and $6"])
def test_a_name_is_no_formula(name):
    new = {"sft": "$\\bad{$", "ipo_md": name, "online_ipo": "plain"}
    drawn = {new[old]: sample for old, sample in samples().items()}
    report = build_report(
        findings(
            samples=drawn,
            matches={(new[a], new[b]): played for (a, b), played in matches().items()},
            reference=new["sft"],
            kl={key: sequence_kl(sample) for key, sample in drawn.items()},
        )
    )
    for figure in plots.figures(report).values():
        assert plots.svg(figure)
        shown = [text.get_text().replace(r"\$", "$") for text in figure.findobj(Text)]
        assert any(name in text for text in shown)


def test_twelve_policies_are_told_apart():
    names = ["sft", *(f"policy {number}" for number in range(12))]
    rate = np.full((PROMPTS, 2), 0.5)
    drawn = {name: policy("an answer", 0.1 * i) for i, name in enumerate(names)}
    report = build_report(
        findings(
            samples=drawn,
            matches=dict.fromkeys(combinations(names, 2), rate),
            kl={name: sequence_kl(sample) for name, sample in drawn.items()},
        )
    )
    figure = plots.win_rate_against_kl(report)
    (legend,) = figure.legends  # outside the axes, where it covers no point
    assert [text.get_text() for text in legend.get_texts()] == names
    looks = {(line.get_color(), line.get_marker()) for line in legend.legend_handles}
    assert len(looks) == 13
    assert '<div class="figures many">' in html_page(report, {}, "many")


def test_figures_are_written_as_png(report, tmp_path):
    for name, figure in plots.figures(report).items():
        plots.write_png(figure, tmp_path / f"{name}.png")
        image = imread(tmp_path / f"{name}.png")
        assert image.shape[0] > 300 and image.shape[1] > 300
        assert image[..., :3].std() > 0.01


def test_one_challenger_is_enough():
    two = {name: samples()[name] for name in ("ipo_md", "sft")}
    pair = {("ipo_md", "sft"): 1.0 - matches()["sft", "ipo_md"]}
    kl = {name: sequence_kl(sample) for name, sample in two.items()}
    report = build_report(findings(samples=two, matches=pair, kl=kl))
    assert report["examples"][1]["preference"] == {"ipo_md": 1.0}
    assert len(plots.figures(report)) == 3
