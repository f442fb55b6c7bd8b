"""Gin files as statements: where they are found, what they include, how values are taken."""

import pytest

from launch import gin_files


def texts(files=(), bindings=(), folders=()):
    return [statement.text for statement in gin_files.read(files, bindings, folders)]


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("TAU=0.1", "TAU = 0.1"),
        ("MODEL_DIR=runs/x", "MODEL_DIR = 'runs/x'"),
        ("MODEL_DIR='runs/x'", "MODEL_DIR = 'runs/x'"),
        ('MODEL_DIR="runs/x"', "MODEL_DIR = 'runs/x'"),
        ("MIXTURE_OR_TASK_NAME=jsonl_prompts", "MIXTURE_OR_TASK_NAME = 'jsonl_prompts'"),
        ("MODEL_DIR=gs://a/b=c", "MODEL_DIR = 'gs://a/b=c'"),
        ("MODEL_DIR=", "MODEL_DIR = ''"),
        ("TITLE=it's 3 # or 4", 'TITLE = "it\'s 3 # or 4"'),
        ("TITLE=1 2", "TITLE = '1 2'"),
        ("RATE = -1e-3", "RATE = -0.001"),
        ("FLAG=True", "FLAG = True"),
        ("FLAG=None", "FLAG = None"),
        ("LENGTHS={'inputs': 16}", "LENGTHS = {'inputs': 16}"),
        ("online.Feed.beta=(0.0, %BETA)", "online.Feed.beta = (0.0, %BETA)"),
        ("FEED=@a/online.Feed()", "FEED = @a/online.Feed()"),
        ("train/x.y=%B", "train/x.y = %B"),
        ("import my_judge", "import my_judge"),
    ],
)
def test_a_value_needs_no_quotes_of_its_own(typed, taken):
    assert texts(bindings=[typed]) == [taken]


def test_a_broken_reference_is_no_string():
    with pytest.raises(gin_files.ConfigError, match=r"^--gin\.MODEL=@models\.T5\(: EOF in"):
        gin_files.read([], ["MODEL=@models.T5("])


def test_includes_stand_in_their_places(tmp_path):
    (tmp_path / "inner.gin").write_text("A = 1  # one\nB = 2\n")
    (tmp_path / "outer.gin").write_text("A = 0\ninclude 'inner.gin'\nx.y:\n  a = 3\nB = 4\n")
    found = gin_files.read(["outer.gin"], ["B=5"], [str(tmp_path)])
    assert [s.text for s in found] == ["A = 0", "A = 1", "B = 2", "x.y.a = 3", "B = 4", "B = 5"]
    assert [s.place for s in found][1:4] == ["inner.gin:1", "inner.gin:2", "outer.gin:4"]
    assert [s.place for s in found][-1] == "--gin.B=5"
    assert [s.comment for s in found][:3] == ["", "one", ""]


def test_the_working_directory_comes_before_the_projects_own(tmp_path, monkeypatch):
    assert texts(["gin/models/t5_1_1/small.gin"]) == texts(["models/t5_1_1/small.gin"]) != []
    own = tmp_path / "gin" / "models" / "t5_1_1"
    own.mkdir(parents=True)
    (own / "small.gin").write_text("A = 1\n")
    monkeypatch.chdir(tmp_path)
    assert texts(["gin/models/t5_1_1/small.gin"]) == ["A = 1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A = 1\nMODEL_DIR = runs/x\n", r"^mine\.gin:2: Failed to parse token 'runs'$"),
        ("A = 1\n\nB = [1\n", r"^mine\.gin:\d: EOF in"),
        ("include 'mine.gin'\n", r"^mine\.gin:1: 'mine\.gin' includes itself$"),
        (
            "A = 1\ninclude 'gin/algorithms/ipo_mdd.gin'\n",
            r"^mine\.gin:2: no gin file .*ipo_md\.gin",
        ),
    ],
)
def test_a_mistake_in_a_file_is_named_by_its_line(text, message, tmp_path):
    (tmp_path / "mine.gin").write_text(text)
    with pytest.raises(gin_files.ConfigError, match=message) as caught:
        gin_files.read(["mine.gin"], [], [str(tmp_path)])
    assert "\n" not in str(caught.value)


def test_an_unknown_file_is_answered_with_the_nearest():
    message = r"^--gin_file=gin/algorithms/ipo_mdd\.gin: .*Nearest: .*gin/algorithms/ipo_md\.gin"
    with pytest.raises(gin_files.ConfigError, match=message):
        gin_files.read(["gin/algorithms/ipo_mdd.gin"], [])
