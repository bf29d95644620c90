"""A model that compares two answers: blind, in both orders, by a rubric, and tested before it is believed."""

from runner.judge.ask import Judged, compare
from runner.judge.check import JudgeCheck, check_judge
from runner.judge.effects import Effect, Effects, effects
from runner.judge.figure import Figure
from runner.judge.findings import choice_findings, comparison_findings, is_pinned, same_family, snapshot_findings
from runner.judge.human import HumanRow, agreement, read_human
from runner.judge.prompt import prompt_sha256
from runner.judge.requirements import Figures
from runner.judge.spending import Spending
from runner.judge.verdict import Attempt, Judgement, Order, Outcome, Pair

__all__ = [
    "Attempt",
    "Effect",
    "Effects",
    "Figure",
    "Figures",
    "HumanRow",
    "JudgeCheck",
    "Judged",
    "Judgement",
    "Order",
    "Outcome",
    "Pair",
    "Spending",
    "agreement",
    "check_judge",
    "choice_findings",
    "compare",
    "comparison_findings",
    "effects",
    "is_pinned",
    "prompt_sha256",
    "read_human",
    "same_family",
    "snapshot_findings",
]
