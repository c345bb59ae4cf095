"""Public dataset layouts -> canonical rows: one function each, which formats.py has in a table.

A function takes one row and returns a canonical one of its layout's type, or raises DataError with
the reason why this row is not one. What is not text it never guesses at.
"""

from collections.abc import Callable, Iterable
from typing import Any

from aligntune.data.rows import ANSWER, RATED, TOOLS, Message, Row
from aligntune.data.turns import (
    after,
    answer_turns,
    asked,
    dialogue,
    last_answer,
    prompt_turns,
    said,
    text,
    tools,
    turns,
)
from aligntune.errors import DataError


def arithmetic(row: Row) -> Row:
    """{question, worked, answer, wrong}: a right solution and a wrong one."""
    return {
        "prompt": asked(row, row["question"], "question"),
        "chosen": [said(row["worked"], "worked")],
        "rejected": [said(row["wrong"], "wrong")],
    }


def preference(row: Row) -> Row:
    """{prompt, chosen, rejected}: text or messages each, as in trl-lib's and most public pairs.

    Answers that are messages may start with the prompt.
    """
    prompt = prompt_turns(row, "prompt")
    chosen, rejected = (after(prompt, answer_turns(row[c], c), c) for c in ("chosen", "rejected"))
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def preference_openai(row: Row) -> Row:
    """{input, preferred_output, non_preferred_output}, as OpenAI tunes on: messages and tools are
    in `input`."""
    given = row["input"]
    if not isinstance(given, dict) or "messages" not in given:
        raise DataError("`input` is not an object with `messages`")
    pair = {"chosen": row["preferred_output"], "rejected": row["non_preferred_output"]}
    made = preference({**row, **pair, "prompt": given["messages"]})
    known = tools(given.get("tools") or [], "input.tools")
    return made | ({TOOLS: known} if known else {})


def preference_messages(row: Row) -> Row:
    """{messages, chosen, rejected}, the earlier turns and two answers to them."""
    return preference({**row, "prompt": row["messages"]})


def preference_question(row: Row) -> Row:
    """{question, chosen, rejected}, often with `system`, as in Intel/orca_dpo_pairs."""
    question = row["question"]
    return preference(
        {**row, "prompt": _about(row, question) if isinstance(question, str) else question}
    )


def preference_conversations(row: Row) -> Row:
    """{conversations, chosen, rejected}, as in llamafactory's dpo_en_demo."""
    return preference({**row, "prompt": row["conversations"]})


def preference_instruction(row: Row) -> Row:
    """{instruction, input, chosen, rejected}, as in LLaMA-Factory's pairs."""
    return preference({**row, "prompt": _instruction(row)})


def transcripts(row: Row) -> Row:
    """{chosen, rejected}: two whole dialogues that differ in the last answer.

    Text as in Anthropic/hh-rlhf, "\\n\\nHuman: ...\\n\\nAssistant: ...", or messages.
    """
    prompt, chosen = last_answer(row["chosen"], "chosen")
    other, rejected = last_answer(row["rejected"], "rejected")
    if prompt != other:
        raise DataError("`chosen` and `rejected` answer different prompts")
    return {"prompt": prompt, "chosen": [chosen], "rejected": [rejected]}


def messages(row: Row) -> Row:
    """{messages}: role and content, or from and value."""
    return {"messages": dialogue(row, "messages")}


def conversations(row: Row) -> Row:
    """{conversations}, the same under the name it has in ShareGPT."""
    return {"messages": dialogue(row, "conversations")}


def prompt_completion(row: Row) -> Row:
    """{prompt, completion}: text or messages each."""
    prompt = prompt_turns(row, "prompt")
    return {"messages": prompt + answer_turns(row["completion"], "completion")}


def alpaca(row: Row) -> Row:
    """{instruction, input, output}, as in tatsu-lab/alpaca. `input` is often empty, and `history`
    has earlier turns."""
    prompt = asked(row, _instruction(row), "instruction")
    if row.get("history"):
        first = len(prompt) - 1
        prompt[first:first] = _earlier(row["history"])
    return {"messages": [*prompt, said(row["output"], "output")]}


def _instruction(row: Row) -> str:
    instruction = text(row["instruction"], "instruction")
    given = text(row["input"], "input") if row.get("input") else ""
    return "\n\n".join(part for part in (instruction, given) if part.strip())


def _earlier(history: Any) -> list[Message]:
    """LLaMA-Factory's earlier turns: a list of [question, answer]."""
    if not isinstance(history, list) or not all(
        isinstance(turn, list | tuple) and len(turn) == 2 for turn in history
    ):
        raise DataError("`history` is not a list of [question, answer]")
    return [
        message
        for question, answer in history
        for message in (
            {"role": "user", "content": text(question, "history")},
            said(answer, "history"),
        )
    ]


def question_answer(row: Row) -> Row:
    """{question, answer}. As in openai/gsm8k, the result may follow `####` in the last line."""
    answer = text(row["answer"], "answer")
    _, marker, result = answer.rpartition("####")
    final = result.strip() if marker and "\n" not in result.strip() else answer
    return {"messages": [*_question(row), said(answer, "answer")], ANSWER: final}


def question_solution(row: Row) -> Row:
    """{question, solution, answer}: the solution is learned, the answer checks others."""
    return {"messages": [*_question(row), said(row["solution"], "solution")]}


def _question(row: Row) -> list[Message]:
    """The question, after the context that it is about."""
    question = text(row["question"], "question")
    _refuse_unsaid_choices(row, question)
    return asked(row, _about(row, question), "question")


def _about(row: Row, question: str) -> str:
    context = text(row["context"], "context") if row.get("context") else ""
    return f"{context}\n\n{question}" if context.strip() else question


def _refuse_unsaid_choices(row: Row, question: str) -> None:
    for name in ("choices", "options"):
        given = row.get(name)
        choices = given.get("text") if isinstance(given, dict) else given
        if choices and not all(str(choice) in question for choice in choices):
            raise DataError(f"`{name}` are not in the question; put them there with a function")


def prompt(row: Row) -> Row:
    """{prompt}: text or messages, with an `answer` where something can check one."""
    asked_for = prompt_turns(row, "prompt")
    _refuse_unsaid_choices(row, asked_for[-1]["content"] if asked_for else "")
    return {"prompt": asked_for}


def plain_text(row: Row) -> Row:
    """{text}, to be learned as it is, in no chat template."""
    return {"messages": [said(row["text"], "text")]}


def unpaired(row: Row) -> Row:
    """{prompt, completion, label}, as in trl-lib's KTO sets: is the answer a good one?"""
    prompt = prompt_turns(row, "prompt")
    completion = after(prompt, answer_turns(row["completion"], "completion"), "completion")
    return {"prompt": prompt, "completion": completion, "label": verdict(row["label"])}


def unpaired_messages(row: Row) -> Row:
    """{messages, label}, as in llamafactory's kto_en_demo: the last turn is what is judged."""
    found = turns(row["messages"], "messages")
    return {"prompt": found[:-1], "completion": found[-1:], "label": verdict(row["label"])}


def unpaired_conversations(row: Row) -> Row:
    """{conversations, label}, the same in ShareGPT's words."""
    return unpaired_messages({**row, "messages": row["conversations"]})


def unpaired_instruction(row: Row) -> Row:
    """{instruction, input, output, kto_tag}, as in LLaMA-Factory's KTO sets."""
    prompt = asked(row, _instruction(row), "instruction")
    completion = [said(row["output"], "output")]
    return {"prompt": prompt, "completion": completion, "label": verdict(row["kto_tag"])}


def verdict(label: Any) -> bool:
    """A label under the names that it has in public sets."""
    known = str(label).lower()
    if known in GOOD or known in BAD:
        return known in GOOD
    raise DataError(f"`label` is {str(label)[:40]!r}, neither true nor false")


GOOD = {"true", "1", "1.0", "yes", "desirable", "good"}
BAD = {"false", "0", "0.0", "-1", "no", "undesirable", "bad"}


def ranked(row: Row) -> Row:
    """{prompt, responses, ranks}, rank 1 the best: the best and the worst answer make a pair."""
    return _ranked_pair(row, row["responses"], row["ranks"])


def rated(row: Row) -> Row:
    """{prompt, responses, scores}: the best and the worst answer make a pair."""
    return _rated_pair(row, row["responses"], row["scores"])


def ultrafeedback(row: Row) -> Row:
    """{instruction, completions}, each with a response and its scores, as in
    openbmb/UltraFeedback."""
    asked_of = {**row, "prompt": row["instruction"]}
    return _valued(asked_of, row["completions"], "completions")


def valued(row: Row) -> Row:
    """{prompt, answers}, each with its rank, as in berkeley-nest/Nectar, or its score, as in
    HuggingFaceH4/stack-exchange-preferences."""
    return _valued(row, row["answers"], "answers")


_SCORES = ("overall_score", "fine-grained_score", "score", "pm_score", "rating")
_SAID = ("response", "answer", "text", "content")


def _valued(row: Row, answers: Any, column: str) -> Row:
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise DataError(f"`{column}` is not a list of objects")
    ranked = all(answer.get("rank") is not None for answer in answers)
    names = ("rank",) if ranked else _SCORES
    values = [_first(answer, names) for answer in answers]
    said_ = [_first(answer, _SAID) for answer in answers]
    return _ranked_pair(row, said_, values) if ranked else _rated_pair(row, said_, values)


def _ranked_pair(row: Row, answers: Any, ranks: Any) -> Row:
    """The best and the worst answer, rank 1 the best."""
    pair, _ = _best_and_worst(row, answers, ranks, best=min)
    return pair


def _rated_pair(row: Row, answers: Any, scores: Any) -> Row:
    """The best and the worst answer, and what they are rated."""
    pair, rated = _best_and_worst(row, answers, scores, best=max)
    return pair | dict(zip(RATED, rated, strict=True))


def _first(answer: Row, names: Iterable[str]) -> Any:
    return next((answer[name] for name in names if answer.get(name) is not None), None)


def _best_and_worst(
    row: Row, answers: Any, values: Any, best: Callable[[Iterable[Any]], Any]
) -> tuple[Row, tuple[float, float]]:
    """(the pair of them, their values)."""
    if not isinstance(answers, list) or not isinstance(values, list) or len(answers) < 2:
        raise DataError("there are not several answers with a value each")
    if len(answers) != len(values):
        raise DataError(f"there are {len(answers)} answers but {len(values)} values")
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise DataError("an answer's value is not a number") from None
    top = best(numbers)
    bottom = min(numbers) if top == max(numbers) else max(numbers)
    if top == bottom:
        raise DataError("all answers are valued the same")
    pair = (answers[numbers.index(top)], answers[numbers.index(bottom)])
    return preference({**row, "chosen": pair[0], "rejected": pair[1]}), (top, bottom)
