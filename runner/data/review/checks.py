"""The table of checks: what is worth knowing about rows, how grave it is, and its cure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.data.review.private import Turns, account, contact, ip_number, password, secret
from runner.data.review.texts import broken_encoding, copied, cut_off, invisible, looping, placeholder, refusal
from runner.errors import Severity

Judge = Callable[[float], Severity | None]  # the share of the rows -> how grave that is, None: not worth a word


@dataclass(frozen=True)
class Check:
    """How grave which share is, the sentence ({rows}: how many), the cure, and for a check of single rows the
    function that names what it found, None for nothing. What it names must be fit to print."""

    judge: Judge
    says: str
    fix: str
    find: Callable[[Turns], str | None] | None = None


def _warning(share: float) -> Severity | None:
    return "warning"


def _note(share: float) -> Severity | None:
    return "note"


def _out_of_place(share: float) -> Severity | None:
    """What most rows hold is the task."""
    return "note" if share > 0.5 else "warning"


def _habit(share: float) -> Severity | None:
    return "warning" if 0.01 <= share <= 0.5 else "note"


def _exception(share: float) -> Severity | None:
    """What many rows do is how these rows are."""
    return "note" if share < 0.2 else None


def _knowledge(share: float) -> Severity | None:
    return "warning" if share > 0.75 else "note" if share > 0.5 else None


CHECKS: dict[str, Check] = {
    "data/secret": Check(
        _warning,
        "A key or token stands in {rows}",
        "Revoke it, and remove the row or put a made-up value in its place: a model may repeat what it was taught.",
        secret,
    ),
    "data/password": Check(
        _warning,
        "A password or key is given in {rows}",
        "Change it if it is real, and put a made-up value in its place.",
        password,
    ),
    "data/account-number": Check(
        _out_of_place,
        "A valid account, card or social security number stands in {rows}",
        "Remove it or put a made-up value in its place, unless the task needs it.",
        account,
    ),
    "data/contact": Check(
        _out_of_place,
        "A person's contact data may stand in {rows}",
        "Remove it or put a made-up value in its place, unless the task needs it.",
        contact,
    ),
    "data/ip-address": Check(
        _note,
        "A public IP address stands in {rows}",
        "Remove it, unless the task needs it.",
        ip_number,
    ),
    "data/placeholder": Check(
        _warning,
        "A placeholder that nobody filled stands in {rows}",
        "Put the values in, or remove the rows; the model would learn to write the placeholder.",
        placeholder,
    ),
    "data/encoding": Check(
        _warning,
        "Characters that were decoded wrongly stand in {rows}",
        "Read the source again in its own encoding, mostly UTF-8, and export it anew.",
        broken_encoding,
    ),
    "data/invisible-characters": Check(
        _note,
        "Zero-width characters or byte-order marks stand in {rows}",
        "Remove them; they make other tokens of the same words.",
        invisible,
    ),
    "data/refusal": Check(
        _habit,
        "The answer is an assistant's refusal or standing phrase in {rows}",
        "Remove these rows, unless refusing is what you want to teach.",
        refusal,
    ),
    "data/copied-question": Check(
        _habit,
        "The answer begins by repeating the question in {rows}",
        "Give the answer alone, unless a copy is the right answer.",
        copied,
    ),
    "data/looping": Check(
        _warning,
        "The answer says the same over and over in {rows}",
        "Cut the answer where it begins to loop.",
        looping,
    ),
    "data/cut-off": Check(
        _exception,
        "The answer seems to be cut off in {rows}",
        "Complete the answer: the model would learn to stop there.",
        cut_off,
    ),
    "data/short-answer": Check(
        _warning,
        "The answer says nothing in {rows}",
        "Complete the answers or remove the rows.",
    ),
    "data/short-prompt": Check(
        _note,
        "The question has fewer than 3 characters in {rows}",
        "See whether the question was lost on the way.",
    ),
    "data/length": Check(
        _note,
        "The answer is far shorter or longer than the others in {rows}",
        "Look at these rows: such lengths are often an error of the export.",
    ),
    "data/script": Check(
        _out_of_place,
        "The answer is in another script than the rest in {rows}",
        "See whether these answers are in the language that you want.",
    ),
    "data/small-class": Check(
        _warning,
        "A class with fewer than 10 rows is the answer in {rows}",
        "Add rows of these classes, or join them with others.",
    ),
    "data/imbalance": Check(
        _warning,
        "One class is the answer in {rows}",
        "Add rows of the other classes, and compare with always answering this one.",
    ),
    "data/class-spelling": Check(
        _warning,
        "A class is not spelt as it mostly is in {rows}",
        "Give each class one spelling, unless these are classes of their own.",
    ),
    "data/same-answer": Check(
        _warning,
        "The same answer is given in {rows}",
        "Keep fewer of these rows; the model would learn to answer so whatever is asked.",
    ),
    "data/same-opening": Check(
        _warning,
        "The answer begins with the same words in {rows}",
        "Vary the beginnings, unless every answer should begin so.",
    ),
    "data/few-openings": Check(
        _note,
        "The question has the most frequent beginning in {rows}",
        "Vary the questions as your users will, unless a program writes them.",
    ),
    "data/few-words": Check(
        _note,
        "Nearly the same phrases make up the answers in {rows}",
        "Vary the wording, unless the answers must follow a form.",
    ),
    "data/knowledge": Check(
        _knowledge,
        "The answer states facts, such as numbers or names, that the prompt does not contain, in {rows}",
        "Tuning teaches behaviour better than facts: consider retrieval, or put the facts into the prompt.",
    ),
    "data/duplicates": Check(
        _warning,
        "An earlier question is repeated with the same answer in {rows}",
        "Remove the repeats; they count double in training.",
    ),
    "data/contradictions": Check(
        _warning,
        "A question has another answer elsewhere in {rows}",
        "Decide for one answer each, unless several are right.",
    ),
}
SECRETS = {"data/secret", "data/password"}
