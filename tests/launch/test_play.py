from launch import play


def test_play_writes_figures_and_facts(tmp_path, capsys):
    arguments = [
        "--gin_file=gin/runs/play.gin",
        f"--gin.OUTPUT_DIR='{tmp_path}/figures'",
        "--gin.EXHIBITS=[@functions/exhibits.Exhibit()]",
    ]
    assert play.main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"functions.png", "facts.md"}
    assert play.main(arguments) == 1
    assert "facts.md, got an earlier result: give --overwrite" in capsys.readouterr().err


def test_play_names_the_nearest_of_a_wrong_name(capsys):
    assert play.main(["--gin_file=gin/runs/play.gin", "--gin.OUTPUT_DIRECTORY='x'"]) == 1
    assert "OUTPUT_DIR" in capsys.readouterr().err
