"""Made-up data of a run, every number of it a different one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runner.backends.base import Segment
from runner.data.ledger import Ledger, SourceTotals
from runner.data.prepare import Shown, SplitReport
from runner.data.review.diversity import Diversity, Variety
from runner.data.tokens import TokenReport
from runner.errors import Problem
from tests.fakes import make_dataset

FROM_SHOP = SourceTotals(
    path="shop/tickets.jsonl",
    part="train",
    container="jsonl",
    format="prompt_completion",
    evidence="prompt_completion: 200 of 201 rows looked at have prompt and completion",
    sha256="5d" * 32,
    num_bytes=110003,
    num_rows=1423,
    kept=1357,
    repaired=33,
    truncated=14,
    dropped=19,
)
GENERAL = replace(
    FROM_SHOP,
    path="https://example.org/general.csv",
    part="mix",
    container="csv",
    format="columns",
    evidence="named in the manifest",
    sha256="b7" * 32,
    num_bytes=52111,
    num_rows=677,
    kept=629,
    repaired=24,
    truncated=7,
    dropped=17,
)
LEDGER = Ledger(
    num_rows=2100,
    kept=1986,
    repaired=57,
    truncated=21,
    dropped=36,
    num_faulty=11,
    reasons={"not drawn": 16, "like a row of the test part": 9, "not JSON": 8, "longer than max_length": 3},
    faults={"not JSON": 11},
    repairs={"blanks around a text": 38, "a byte-order mark": 22},
    sources=(FROM_SHOP, GENERAL),
)
TOKENS = TokenReport(
    total=210987,
    labelled=61871,
    median=97,
    p90=155,
    p99=199,
    longest=224,
    longest_answer=58,
    max_length=231,
    num_counted=2092,
    num_over=3,
    band=None,
    histogram=((101, 1204), (142, 613), (183, 201), (224, 46)),
)
SPLIT = SplitReport(
    train=1702,
    dev=118,
    test=244,
    num_own=1391,
    num_groups=1990,
    num_pairs=27,
    num_withheld=9,
    num_mixed=310,
    classes={"late": {"train": 811, "dev": 51, "test": 115}, "damaged": {"train": 581, "dev": 67, "test": 129}},
)
QUESTIONS = Variety(
    num_distinct=1749,
    num_openings=1322,
    openings=(("where is my", 41), ("i'd like to", 37)),
    distinct_ngrams=(0.2134, 0.6457, 0.9128),
    median_words=23.5,
)
ANSWERS = Variety(
    num_distinct=5,
    num_openings=4,
    openings=(("late", 977), ("damaged", 772)),
    distinct_ngrams=(0.0011, 0.0022, 0.0033),
    median_words=1.0,
)
SHOWN = Shown(
    source="tickets.jsonl:1207",
    segments=(
        Segment(text="\n<|user|>\n  Where is\tmy parcel?\n\n", trained=False),
        Segment(text="late <|end|>", trained=True),
        Segment(text="\n", trained=False),
    ),
)
DATASET = make_dataset(
    ledger=LEDGER,
    tokens=TOKENS,
    train_tokens=175432,
    split=SPLIT,
    diversity=Diversity(num_rows=1754, questions=QUESTIONS, answers=ANSWERS),
    shown=(SHOWN,),
    findings=(Problem(code="data/dropped", what="11 of 2,100 rows could not be used.", severity="warning"),),
)
DELIVERY: dict[str, Any] = {
    "model_dir": "runs/quickstart-3f9c1d27ab/model",
    "files": [
        {"name": "adapter_config.json", "bytes": 1011, "sha256": "1a" * 32},
        {"name": "adapter_model.safetensors", "bytes": 19_560_312, "sha256": "9c41f0e7a2b8d365" * 4},
    ],
    "merged_dir": "runs/quickstart-3f9c1d27ab/merged",
    "checks": [
        {
            "form": form,
            "num_rows": 75,
            "num_answers": 75,
            "loss_evaluated": 0.2312,
            "loss_delivered": loss,
            "score_evaluated": 0.5867,
            "score_delivered": score,
            "same_answers": same,
            "agrees": True,
        }
        for form, loss, score, same in (("adapter", 0.2313, 0.5867, 75), ("merged", 0.2329, 0.5733, 74))
    ],
    "serve": [
        {"name": "vLLM", "command": "vllm serve small --enable-lora --lora-modules quickstart=runs/quickstart/model"},
        {"name": "transformers", "command": "transformers serve runs/quickstart/merged"},
    ],
    "card": "runs/quickstart-3f9c1d27ab/model/README.md",
    "to": {
        "url": "hf://owner/quickstart",
        "pushed_at": "2026-11-29T12:00:00+00:00",
        "commit": "c0ffee" * 6,
        "files": [{"name": "adapter_model.safetensors", "bytes": 19_560_312, "sha256": "9c41f0e7a2b8d365" * 4}],
        "serve": [{"name": "copied from the hub", "command": "hf download owner/quickstart --local-dir quickstart"}],
    },
}
