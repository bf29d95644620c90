"""Made-up rows, and what a review finds in them."""

from __future__ import annotations

import random
from collections.abc import Iterable

from runner.conversation import Example, Message
from runner.data.review import Finding, Review

PROSE = "The kettle is back in the workshop and will leave again on the next cart, dry and with a new lid. "
WORDS = ("oak", "barrel", "cart", "lid", "rope", "lamp", "chair", "spoon", "kettle", "hinge", "felt", "clay", "reed",
         "wool", "bell", "gate", "fern", "moss", "pond", "slate")  # fmt: skip
KEY = "AKIA" + "Q7ZP4M2XW9LR5TVB"
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7"
PRIVATE = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJuYW1lIjoiV3JlbiIsImlhdCI6MTV9.Kx9vTq3bD_w-Zr4"
OPENAI = "sk-proj-Zt4nQ8vLw2XyB6cMd0RfHk3J"
WORD = "Gr4nite-Swift7"


def example(answer: str, question: str = "Where is the kettle that I sent in?", row: int = 1, **more: str) -> Example:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Example(messages=messages, source=f"rows.jsonl:{row}", **more)


def ordinary(num_rows: int, first: int = 1, seed: int = 0) -> list[Example]:
    """Rows with nothing to find."""
    draw = random.Random(seed)

    def words(least: int) -> str:
        return " ".join(draw.choices(WORDS, k=least + draw.randrange(10)))

    return [example(f"{words(15).capitalize()}.", f"{words(8)}?", first + i) for i in range(num_rows)]


def review_of(rows: Iterable[Example]) -> Review:
    review = Review()
    for row in rows:
        review.add(row)
    return review


def reviewed(examples: Iterable[Example]) -> dict[str, Finding]:
    return {finding.code: finding for finding in review_of(examples).findings()}


def with_answers(answers: Iterable[str], label: bool = False) -> list[Example]:
    return [
        example(answer, row.prompt[0].content, i, **({"label": answer[:4]} if label else {}))
        for i, (answer, row) in enumerate(zip(answers, ordinary(2000), strict=False), 1)
    ]
