"""Which answers count as right."""

import time
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
    ("18 g of CO_2", "18"),
    ("The answer is 1/2", "0.5"),
    ("The probability is $\\frac{3}{4}$.", "0.75"),
    ("= -\\dfrac{1}{2}", "-0.5"),
    ("\\boxed{\\frac12}", "0.5"),
    ("#### 3/4", "0.75"),
    ("The answer is 3/4.", "3/4"),
    ("It is 0.75", "\\frac{3}{4}"),
    ("It is $-\\frac{3}{4}$.", "$-\\frac{3}{4}$"),
    ("He ate 1 1/2 cups.", "1.5"),
    ("\\boxed{2\\frac{1}{2}}", "2.5"),
    ("\\boxed{-2 \\frac{1}{2} \\text{ cups}}", "-2.5"),
    ("18 / 3 = 6", "6"),
    ("The area is 18 cm^2.", "18"),
    ("a = 9.8\\,\\mathrm{m/s}^2", "9.8"),
    ("at 60 km/h", "60"),
    ("It is 10x faster", "10"),
    ("about 1\u202f800 \u20ac", "1800"),
    ("#### 18!", "18"),
    ("**18**", "18"),
    ("3\n* 4", "4"),
    ("Week 3:210 pages", "210"),
    ("\\boxed{x \\approx 3.14}", "3.14"),
    ("<think>17 or 18</think><answer>18</answer> 5 steps", "18"),
    ("<answer>Paris</answer>", "Paris"),
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
    ("The answer is 1/2", "2"),
    ("The answer is 4", "3/4"),
    ("The probability is $\\frac{3}{4}$.", "4"),
    ("The probability is 3/4.", "4"),
    ("\\boxed{3/4}", "4"),
    ("#### 3/4", "4"),
    ("It is $\\frac{3\\pi}{4}$", "4"),
    ("It is \\frac{x}{4}", "4"),
    ("It is x/2", "2"),
    ("on 3/4/2020", "2020"),
    ("2 / 0", "0"),
    ("= 2^5", "5"),
    ("= 2^{5}", "5"),
    ("so x^2", "2"),
    ("2**5", "5"),
    ("3 \u00d7 4", "4"),
    ("$3 \\times 4$", "4"),
    ("$\\sqrt{3}$", "3"),
    ("$\\sqrt[3]{8}$", "8"),
    ("The area is $3\\pi$.", "3"),
    ("f'(x) = 2x.", "2"),
    ("It takes 3:45", "45"),
    ("\\boxed{x^2 + 3}", "3"),
    ("#### 2^5", "5"),
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
    begun = time.process_time()
    for text in ("\\text{" + " " * 50_000, "\\frac " * 20_000, "/ " * 50_000, "^" + "{" * 100_000):
        matches(text, "5")
    assert time.process_time() - begun < 1
