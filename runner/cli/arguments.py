"""The command line: its verbs and their arguments."""

from __future__ import annotations

import argparse
import difflib
import os
from pathlib import Path
from typing import NoReturn

from runner import __version__
from runner.errors import EXIT_CODES
from runner.masking import masked_source

TRUST = "let Python code that comes with the model run, with all that you may do; read it first"
LOCKED = "refuse whatever is not as MANIFEST.lock.yaml, or with --from the run, says; use the commits that it names"
VERBS = ("run", "validate", "plan", "schema", "report", "prepare", "doctor", "export", "list", "fetch", "lock")
CLUSTERS = ("skypilot", "kubernetes", "kubeflow", "slurm", "awsbatch")
LOGS = ("auto", "text", "json")
DOCTOR = (
    "look at this machine: GPU, limits, packages, folders, servers, credentials",
    "Exits with 0 when every check is ok or a warning; otherwise with what a run would end with, and of several "
    "codes the first of 78, 64, 66, 77, 73, 74, 69: what no retry would change comes first. "
    "What cannot be known counts as 69.",
)


class Parser(argparse.ArgumentParser):
    """A parser that does not show what follows an option such as --api-key, which there is none of."""

    def error(self, message: str) -> NoReturn:
        super().error(masked_source(message))


def make_parser() -> argparse.ArgumentParser:
    """The command line; the name of the verb is the namespace's `verb`."""
    codes = "\n".join(f"  {int(code):>3}  {meaning.meaning}" for code, meaning in EXIT_CODES.items())
    parser = Parser(
        prog="runner",
        description="Carries a fine-tuning experiment from one YAML manifest to a verdict.",
        epilog=f"`runner MANIFEST` is the same as `runner run MANIFEST`.\n\nexit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"runner {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser("run", help="the whole lifecycle, unattended")
    run.add_argument(
        "--out",
        metavar="DIR",
        help="the run directory itself (default: runs/<name>-<run id>); of a sweep, the folder of its run directories "
        "(default: runs/<name>-sweep)",
    )
    run.add_argument("--fresh", action="store_true", help="remove what an earlier run left in the directory")
    run.add_argument(
        "--log",
        choices=LOGS,
        default=os.environ.get("RUNNER_LOG", "auto"),
        help="text for people, or JSON lines for machines (auto: JSON lines where the output is no terminal)",
    )
    run.set_defaults(verb="run")
    plan = verbs.add_parser("plan", help="everything known before anything is spent")
    plan.set_defaults(verb="plan")
    export = verbs.add_parser("export", help="the run as a job of a cluster, on standard output")
    export.add_argument("target", choices=CLUSTERS, help="the kind of cluster")
    export.add_argument("--out", metavar="DIR_OR_URL", help="the run directory over there, as s3://bucket/prefix")
    export.add_argument("--output", type=Path, metavar="FILE", help="write the job to this file")
    export.add_argument(
        "--at", metavar="PATH", help="the manifest's place in the container, where it and its files are there already"
    )
    export.set_defaults(verb="export")
    run.add_argument("manifest", type=Path, nargs="?")
    run.add_argument(
        "--from",
        dest="past_run",
        type=Path,
        metavar="RUN_DIR",
        help="repeat the run of a run directory, into a new one (default: runs/<name>-<run id>-repeat)",
    )
    for verb in (plan, export):
        verb.add_argument("manifest", type=Path)
    for verb in (run, plan):
        verb.add_argument("--locked", action="store_true", help=LOCKED)
    for verb in (run, plan, export):
        verb.add_argument("--point", metavar="N", help="of a sweep, only this point, counted from 0 (or RUNNER_POINT)")
        verb.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            dest="overrides",
            help="put a value over the manifest's, as in hyperparameters.epochs=3; may be repeated",
        )
        verb.add_argument("--trust-remote-code", action="store_true", help=TRUST)
    validate = verbs.add_parser("validate", help="check manifests; every fault at once, nothing heavy loaded")
    validate.add_argument("manifests", type=Path, nargs="+", metavar="manifest")
    validate.add_argument("--format", choices=("text", "json", "github"), default="text")
    validate.set_defaults(verb="validate")
    schema = verbs.add_parser("schema", help="print a JSON Schema")
    schema.add_argument("name", choices=("manifest", "report", "lock", "run.lock"), nargs="?", default="manifest")
    schema.set_defaults(verb="schema")
    lock = verbs.add_parser("lock", help="write MANIFEST.lock.yaml for git: what the manifest stands on")
    lock.add_argument("manifest", type=Path)
    lock.add_argument("--check", action="store_true", help="only say what is not as it was locked")
    lock.add_argument("--format", choices=("text", "json", "github"), default="text")
    lock.add_argument("--trust-remote-code", action="store_true", help=TRUST)
    lock.set_defaults(verb="lock")
    report = verbs.add_parser("report", help="show a report again and redraw its HTML")
    report.add_argument("directory", type=Path)
    report.set_defaults(verb="report")
    prepare = verbs.add_parser("prepare", help="convert or fetch a model into the cache, so that runs start at once")
    prepare.add_argument("model")
    prepare.add_argument("--trust-remote-code", action="store_true", help=TRUST)
    prepare.set_defaults(verb="prepare")
    doctor = verbs.add_parser("doctor", help=DOCTOR[0], description=f"{DOCTOR[0].capitalize()}. {DOCTOR[1]}")
    doctor.add_argument("manifest", type=Path, nargs="?", help="also look at what a run of it would need")
    doctor.add_argument("--out", metavar="DIR", help="the run directory that the run would have")
    doctor.add_argument("--format", choices=("text", "json"), default="text")
    doctor.set_defaults(verb="doctor")
    listing = verbs.add_parser("list", help="the runs below folders: status, verdict, key scores, cost")
    listing.add_argument("directories", type=Path, nargs="*", metavar="DIR", help="default: runs")
    listing.add_argument("--format", choices=("text", "json"), default="text")
    listing.set_defaults(verb="list")
    fetch = verbs.add_parser("fetch", help="copy a run from its mirror in an object store to this machine")
    fetch.add_argument("url", metavar="URL", help="what the run was given as --out, as s3://bucket/folder")
    fetch.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="default: runs/<last part of the URL>")
    fetch.set_defaults(verb="fetch")
    return parser


def check_verb(parser: argparse.ArgumentParser, said: str = "") -> None:
    """A word that is no verb stands for a manifest; one that looks like none is a verb spelled wrongly."""
    if said.isalpha() and said not in VERBS and not Path(said).exists():
        meant = difflib.get_close_matches(said, VERBS, n=1)
        hint = f"did you mean '{meant[0]}'?" if meant else f"choose from {', '.join(VERBS)}"
        parser.error(f"'{said}' is neither a command nor a manifest; {hint}")
