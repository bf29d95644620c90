"""The data stage against TRL's own preparation, and at a million rows.

    python scripts/bench_data.py prepare            rendering, tokenizing, masking: ours and TRL's, interleaved
    python scripts/bench_data.py scale 100000 1000000 [--tokens]   time a row and peak memory of the whole stage

`prepare` needs the embedded model's cache (`./scripts/setup`). `scale` runs each size in a process of its own; without
`--tokens` no tokenizer is at hand, so that lengths are estimated and only reading, reviewing, the near-duplicate search
and the split are measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
CACHE = Path(os.environ.get("RUNNER_CACHE") or Path.home() / ".cache" / "runner")
MODEL = "smollm2-135m-instruct"
MANIFEST = ROOT / "manifests" / "quickstart.yaml"


class Quiet:
    """A watcher that watches nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None: ...
    def advance(self, amount: int = 1, **facts: float | str) -> None: ...
    def progress(self, label: str, total: int) -> Quiet:
        return self

    def say(self, line: str) -> None: ...
    def check(self) -> None: ...


def main() -> None:
    """Runs one of the two benchmarks, or one size of the second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    prepare = verbs.add_parser("prepare")
    prepare.add_argument("--rounds", type=int, default=5)
    prepare.set_defaults(run=bench_prepare)
    scale = verbs.add_parser("scale")
    scale.add_argument("rows", type=int, nargs="+")
    scale.add_argument("--tokens", action="store_true")
    scale.set_defaults(run=bench_scale)
    one = verbs.add_parser("one")
    one.add_argument("file", type=Path)
    one.add_argument("--tokens", action="store_true")
    one.set_defaults(run=stage_once)
    args = parser.parse_args()
    args.run(args)


# --- rendering, tokenizing, masking ----------------------------------------------------------------------------------


def bench_prepare(args: argparse.Namespace) -> None:
    """Examples per second of both arms on the same rows, and their ratio round by round."""
    from runner.backends import load

    session = load("lora").open_session(MODEL, "lora", CACHE, Quiet())
    trl = trl_preparation(session.tokenizer)  # type: ignore[attr-defined]
    for name, rows in (
        ("quickstart rows, one system prompt", quickstart_rows()),
        ("mixed rows, no prompt", mixed_rows()),
    ):
        ratios = []
        for _ in range(args.rounds):
            theirs, ours = seconds(lambda rows=rows: trl(rows)), seconds(lambda rows=rows: ours_once(session, rows))
            ratios.append(theirs / ours)
            print(f"  TRL {len(rows) / theirs:7,.0f}   ours {len(rows) / ours:7,.0f} examples/s   {ratios[-1]:.2f}x")
        tokens = ours_once(session, rows) / len(rows)
        spread = " / ".join(f"{ratio:.2f}x" for ratio in (min(ratios), median(ratios), max(ratios)))
        print(f"{name}: {len(rows):,} rows of {tokens:.0f} tokens: {spread} (least, median, most)")
        check_equal(trl(rows), session, rows)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def quickstart_rows() -> list[Any]:
    """The shipped tickets with the quickstart's system prompt, fifteen times over (each differs by its number)."""
    from runner.conversation import Example, Message
    from runner.manifest import load_manifest

    system = load_manifest(MANIFEST).values["data"]["system"]
    lines = (ROOT / "manifests" / "data" / "support-tickets.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        Example(
            messages=(
                Message(role="system", content=system),
                Message(role="user", content=f"{row['prompt']} ({i})"),
                Message(role="assistant", content=row["completion"]),
            ),
            source=f"tickets:{i}",
        )
        for i, row in enumerate(json.loads(line) for line in lines * 15)
    ]


def mixed_rows(count: int = 6000) -> list[Any]:
    """Questions and answers of about 200 tokens, put together from the shipped texts."""
    import random

    from runner.conversation import Example, Message

    draw = random.Random(0)
    sentences = []
    for path in ("support-tickets.jsonl", "brand-voice.jsonl"):
        for line in (ROOT / "manifests" / "data" / path).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts = [row["prompt"]] if "prompt" in row else [turn["content"] for turn in row["messages"]]
            sentences += [s for text in texts for s in text.split(". ") if s]
    rows = []
    for i in range(count):
        asked, answered = (". ".join(draw.choices(sentences, k=k)) for k in (draw.randint(1, 5), draw.randint(2, 10)))
        turns = (Message(role="user", content=asked), Message(role="assistant", content=answered))
        rows.append(Example(messages=turns, source=f"mixed:{i}"))
    return rows


def ours_once(session: Any, rows: list[Any]) -> int:
    """Renders, tokenizes, masks and writes the rows, with nothing cached; returns the number of tokens."""
    from runner.backends.local.encoded import encode_rows

    with tempfile.TemporaryDirectory() as folder:
        encoded = encode_rows(session.tokenizer, rows, session.stop_ids, Path(folder), Quiet())
        return int(encoded.counts.total.sum())


def trl_preparation(tokenizer: Any) -> Callable[[list[Any]], Any]:
    """TRL's own preparation of conversational prompts and completions, without its cache, by its own trainer."""
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    datasets.disable_caching()
    datasets.disable_progress_bars()
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **size))
    arguments = SFTConfig(output_dir=tempfile.mkdtemp(), report_to="none", use_cpu=True, bf16=False, max_length=None)

    def as_dataset(rows: list[Any]) -> Any:
        turns = [[{"role": m.role, "content": m.content} for m in row.messages] for row in rows]
        return datasets.Dataset.from_list([{"prompt": t[:-1], "completion": t[-1:]} for t in turns])

    start = as_dataset(quickstart_rows()[:4])
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=start, processing_class=tokenizer)
    held: dict[int, Any] = {}

    def prepare(rows: list[Any]) -> Any:
        dataset = held.setdefault(id(rows), as_dataset(rows))
        return trainer._prepare_dataset(dataset, tokenizer, arguments, False, None, "train")

    prepare(quickstart_rows()[:4])
    return prepare


def check_equal(theirs: Any, session: Any, rows: list[Any]) -> None:
    """Both arms must make the same tokens, or the comparison means nothing."""
    from runner.backends.local.encode import encode

    ours = encode(session.tokenizer, rows[:200], session.stop_ids)
    same = sum(row.input_ids == theirs[i]["input_ids"] for i, row in enumerate(ours))  # type: ignore[union-attr]
    print(f"  same tokens in {same} of {len(ours)} rows")


# --- a million rows --------------------------------------------------------------------------------------------------


def bench_scale(args: argparse.Namespace) -> None:
    """Each size in its own process: seconds, microseconds a row, peak memory; then again from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        for rows in args.rows:
            path = Path(folder) / f"{rows}.jsonl"
            write_rows(path, rows)
            os.environ["BENCH_CACHE"] = str(Path(folder) / "cache")
            for label in ("first", "again"):
                command = [sys.executable, __file__, "one", str(path), *(["--tokens"] if args.tokens else [])]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                print(
                    f"{rows:>9,} rows {label}: {found['seconds']:.1f} s, {1e6 * found['seconds'] / rows:.0f} us a row, "
                    f"peak {found['peak_gb']:.2f} GB, {found['pairs']:,} pairs, {found['withheld']:,} withheld",
                    flush=True,
                )
            path.unlink()
            shutil.rmtree(os.environ["BENCH_CACHE"])


def write_rows(path: Path, count: int) -> None:
    """Rows of about 200 tokens from a Zipf vocabulary, log-normal in length; one in fifty is a near-duplicate."""
    import numpy as np

    rng = np.random.default_rng(0)
    sounds = np.array([a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "er", "an", "ol")])
    words = np.array(["".join(rng.choice(sounds, rng.integers(1, 4))) for _ in range(50_000)])
    chances = 1 / np.arange(1, len(words) + 1)
    chances /= chances.sum()
    earlier: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        for _ in range(0, count, 1000):
            lengths = np.clip(rng.lognormal(4.6, 0.5, 1000), 12, 600).astype(int)
            drawn = words[rng.choice(len(words), lengths.sum(), p=chances)]
            for row in np.split(drawn, np.cumsum(lengths)[:-1]):
                cut = max(6, len(row) * 2 // 3)
                question = " ".join(row[:cut])
                if rng.random() < 0.02 and earlier:
                    question = swap_words(earlier[int(rng.integers(len(earlier)))], rng)
                elif len(earlier) < 50_000:
                    earlier.append(question)
                file.write(json.dumps({"prompt": question, "completion": " ".join(row[cut:])}) + "\n")


def swap_words(text: str, rng: Any) -> str:
    """The text with two of its words exchanged and one left out."""
    parts = text.split(" ")
    i, j = rng.integers(len(parts), size=2)
    parts[i], parts[j] = parts[j], parts[i]
    return " ".join(parts[:-1])


def stage_once(args: argparse.Namespace) -> None:
    """Runs the data stage on one file and prints what it took as JSON."""
    from dataclasses import replace

    from runner.data.prepare import prepare_data
    from runner.manifest import load_manifest
    from runner.plan import make_plan

    with no_output():
        session = open_session(args.tokens)
        plan = make_plan(load_manifest(MANIFEST, ["hyperparameters.max_length=2048"]), session.facts)
        source = replace(plan.data.train[0], source=str(args.file), system=None)
        plan = replace(plan, data=replace(plan.data, train=(source,)))
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as out:
            dataset = prepare_data(plan, session, Path(out), Path(os.environ["BENCH_CACHE"]), Quiet())
        taken = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    split = dataset.split
    result = {"seconds": taken, "peak_gb": peak, "pairs": split.num_pairs, "withheld": split.num_withheld}
    print(json.dumps(result))


def open_session(with_tokens: bool) -> Any:
    """The embedded model's session, or one without a tokenizer."""
    if with_tokens:
        from runner.backends import load

        session = load("lora").open_session(MODEL, "lora", CACHE, Quiet())
        session._cache = Path(os.environ["BENCH_CACHE"])  # type: ignore[attr-defined]
        return session
    from runner.backends.base import ModelFacts

    class NoTokenizer:
        facts = ModelFacts(
            name=MODEL, revision=None, family="llama", num_parameters=None, context_tokens=None, license=None
        )

        def count_tokens(self, *_: object) -> None: ...
        def mark(self, _: object) -> list[Any]:
            return []

    return NoTokenizer()


@contextlib.contextmanager
def no_output() -> Iterator[None]:
    """Keeps what libraries say out of the result."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


if __name__ == "__main__":
    main()
