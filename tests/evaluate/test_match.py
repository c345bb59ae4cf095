"""Which answers count as right."""

from decimal import Decimal

import pytest

from aligntune.rewards.match import last_number, matches

RIGHT = [
    ("42", "42"),
    ("so 3 + 4 = 7.", "7"),
    ("It costs $1,800.", "1800"),
    ("1800.00 dollars", "1,800"),
    ("about 1,234,567.5", "1234567.5"),
    ("the answer is -5", "-5"),
    ("the answer is -$5", "\u22125"),
    ("10-5", "5"),
    ("= $-5.", "-5"),
    (".5", "0.5"),
    ("1e3", "1000"),
    ("50 %", "50%"),
    ("18 litres of H2O", "18"),
    ("答案是18岁", "18"),
    ("#### 18", "18"),
    ("#### 18\n\nQuestion: what is 2 + 2?", "18"),
    ("#### **$18** in all\nI used 5 steps.", "18"),
    ("He has 18.", "2 * 9 = <<2*9=18>>18\n#### 18"),
    ("#### Step 2\nso it is 7", "7"),
    ("#### 12. Compute\nso it is 7", "7"),
    ("Thus \\boxed{18}, which I checked 3 times.", "18"),
    ("\\boxed{1{,}800 \\text{ km}}", "1800"),
    ("\\boxed{{18}}", "18"),
    ("\\boxed{\\frac{1}{2}}", "\\boxed{\\frac{1}{2}}"),
    ("Let me think.\n\n**Paris.**\n", "paris"),
    ("The  Nile", "the nile"),
    ("B", "(B)".strip("()")),
]

WRONG = [
    ("", "5"),
    ("no idea", "5"),
    ("7 and then 8", "7"),
    ("15", "5"),
    ("5", "-5"),
    ("0.5", "5"),
    ("18000", "18"),
    ("\\boxed{\\frac{1}{2}}", "2"),
    ("\\boxed{nothing} 18", "18"),
    ("#### 17\n18", "18"),
    ("Paris is in France", "Paris"),
    ("Paris\nLondon", "Paris"),
    ("", "Paris"),
]


@pytest.mark.parametrize(("text", "reference"), RIGHT)
def test_answers_that_state_the_reference_match(text, reference):
    assert matches(text, reference)


@pytest.mark.parametrize(("text", "reference"), WRONG)
def test_answers_that_state_something_else_do_not(text, reference):
    assert not matches(text, reference)


def test_numbers_are_compared_as_decimals():
    assert last_number("0.1 + 0.2 = 0.3") == Decimal("0.3")
    assert not matches("0.30000000000000004", "0.3")
    assert last_number("nothing") is None


def test_hostile_text_is_read_in_linear_time():
    for text in ("1," * 50_000, "\\boxed{" * 20_000, "9" * 100_000, "#" * 100_000, "1e999999999"):
        matches(text, "5")
