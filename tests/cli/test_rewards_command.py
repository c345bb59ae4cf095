"""`aligntune rewards`: what is there, what it is, and trying it."""

from aligntune.rewards import REWARDS


def test_the_list_has_every_reward_below_its_topic(run):
    code, out, _ = run("rewards")
    assert code == 0
    topics = [line for line in out.splitlines() if not line.startswith(" ")]
    assert topics == ["style", "correctness", "alignment", "model"]
    listed = [line.split()[0] for line in out.splitlines() if line.startswith(" ")]
    assert sorted(listed) == sorted(REWARDS)


def test_one_is_shown_and_tried(run):
    assert "min_length: a whole number (10)" in run("rewards", "show", "length")[1]
    code, _, err = run("rewards", "show", "lenght")
    assert (code, "did you mean 'length'" in err) == (78, True)
    code, out, _ = run(
        "rewards", "test", "length", "--text", "a b", "--text", "", "--params", '{"target": 4}'
    )
    assert (code, out) == (0, "  0.5000  'a b'\n  0.0000  ''\n")
    assert run("rewards", "test", "overlong", "--text", "")[1] == "  0.0000  ''\n"
    asked = '{"instruction_id_list": ["punctuation:no_comma"]}'
    assert (
        "1.0000"
        in run("rewards", "test", "instruction_following", "--text", "a", "--columns", asked)[1]
    )
    assert "none" in run("rewards", "test", "gsm8k", "--text", "4")[1]
    code, _, err = run("rewards", "test", "format", "--text", "a")
    assert (code, "needs `tags`" in err) == (78, True)
