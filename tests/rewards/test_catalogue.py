"""`aligntune rewards`: what is there, what it is, and trying it."""

import pytest

from aligntune.cli import main
from aligntune.rewards import REWARDS, by_model, own
from aligntune.rewards.describe import described


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["aligntune", "rewards", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_list_has_every_reward_below_its_topic(run):
    code, out, _ = run()
    assert code == 0
    topics = [line for line in out.splitlines() if not line.startswith(" ")]
    assert topics == ["style", "correctness", "alignment", "model"]
    listed = [line.split()[0] for line in out.splitlines() if line.startswith(" ")]
    assert sorted(listed) == sorted(REWARDS)


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_says_what_it_is_and_each_of_its_params(name):
    known, text = REWARDS[name], described(name)
    assert known.says in text
    if known.path and not known.embeds:
        assert all(f"\n  {key}: " in text for key in own(known))
    if known.label is not None:
        assert all(f"\n  {key}: " in text for key in by_model(known))
    low, _, high = known.range.partition("..")
    assert known.path == "" or (low in text and high in text)


def test_one_is_shown_and_tried(run):
    assert "min_length: a whole number (10)" in run("show", "length")[1]
    code, _, err = run("show", "lenght")
    assert (code, "did you mean 'length'" in err) == (78, True)
    code, out, _ = run("test", "length", "--text", "a b", "--text", "", "--params", '{"target": 4}')
    assert (code, out) == (0, "  0.5000  'a b'\n  0.0000  ''\n")
    asked = '{"instruction_id_list": ["punctuation:no_comma"]}'
    assert "1.0000" in run("test", "instruction_following", "--text", "a", "--columns", asked)[1]
    assert "none" in run("test", "gsm8k", "--text", "4")[1]
    code, _, err = run("test", "format", "--text", "a")
    assert (code, "needs `tags`" in err) == (78, True)
