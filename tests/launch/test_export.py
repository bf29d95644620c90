"""What `runner export` writes: golden files, what every cluster is told alike, and what each refuses."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.cli.arguments import CLUSTERS
from runner.cli.opening import open_manifest
from runner.errors import EXIT_CODES, Exit, RunnerError
from runner.identity import identify
from runner.launch import TARGETS, export, make_job
from runner.launch.awsbatch import MOST_RULES, retry_rules
from runner.launch.pods import LABEL, MOST_BYTES
from runner.launch.retry import FINAL, RETRIED
from runner.launch.text import as_yaml
from runner.manifest import load_manifest
from runner.plan import source_files
from runner.sweep import chosen_point, points
from tests.errors import call
from tests.launch.cases import CASES, Case, carry_out, in_folder

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
IMAGE = "image: registry.example.com/r:1"


def test_the_command_line_knows_every_target() -> None:
    assert tuple(TARGETS) == CLUSTERS
    assert {case.target for case in CASES} == set(TARGETS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_an_export_is_the_golden_file(case: Case) -> None:
    """After a deliberate change: UPDATE_GOLDEN=1 pytest tests/launch, then read the diff."""
    job, exported = carry_out(case)
    text = exported.text.replace(job.run_id, "RUNID01234")  # which depends on our version
    golden = GOLDEN / case.file
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_golden_file_belongs_to_a_case() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {case.file for case in CASES}


# --- retries: one table, everywhere ---------------------------------------------------------------------------------


def test_what_is_tried_again_is_what_the_table_of_exit_codes_says() -> None:
    assert set(RETRIED) == {int(code) for code, meaning in EXIT_CODES.items() if meaning.retry} | {137, 143}
    assert not set(RETRIED) & set(FINAL)
    assert set(RETRIED) | set(FINAL) | {0} == set(map(int, Exit)) | {137, 143}


def of(target: str, label: str) -> str:
    [case] = [case for case in CASES if (case.target, case.label) == (target, label)]
    return carry_out(case)[1].text


def documents(text: str) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.mark.parametrize(("label", "end"), [("small", "FailJob"), ("sweep", "FailIndex")])
def test_kubernetes_ends_at_once_what_no_retry_changes(label: str, end: str) -> None:
    spec = documents(of("kubernetes", label))["Job"]["spec"]
    taken_away, passing, final = spec["podFailurePolicy"]["rules"]
    assert taken_away == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert (passing["action"], passing["onExitCodes"]["operator"]) == ("Count", "In")
    assert (final["action"], final["onExitCodes"]["operator"]) == (end, "NotIn")
    assert passing["onExitCodes"]["values"] == final["onExitCodes"]["values"] == sorted(RETRIED)
    assert spec["backoffLimit" if label == "small" else "backoffLimitPerIndex"] == 4
    assert spec["template"]["spec"]["restartPolicy"] == "Never" and spec["podReplacementPolicy"] == "Failed"


def test_aws_batch_has_room_for_its_rules_and_ends_what_none_names() -> None:
    """A rule more, and the service would refuse the job: then a code of the table has to be left out knowingly."""
    rules = retry_rules()
    assert len(rules) <= MOST_RULES
    assert rules[-1] == {"onReason": "*", "action": "EXIT"}
    assert {rule["onExitCode"] for rule in rules if "onExitCode" in rule} == {
        str(int(code)) for code, meaning in EXIT_CODES.items() if meaning.retry
    }


def test_skypilot_starts_again_on_the_same_codes() -> None:
    task = yaml.safe_load(of("skypilot", "spot"))
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == sorted(RETRIED)


# --- what is run ----------------------------------------------------------------------------------------------------


def expanded(word: str) -> str:
    """As the kubelet reads arguments: $(NAME) is a variable, and $$ is a $."""
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", word)
    return word.replace("$$", "$")


def words_of(case: Case, text: str) -> list[str]:
    """What stands behind `runner` where the job runs."""
    if case.target == "kubernetes":
        container = documents(text)["Job"]["spec"]["template"]["spec"]["containers"][0]
        return [expanded(word) for word in container["args"]]
    if case.target == "kubeflow":
        trainer = documents(text)["TrainJob"]["spec"]["trainer"]
        assert trainer["command"][-1] == "runner"
        return [expanded(word) for word in trainer["args"]]
    if case.target == "awsbatch":
        definition = json.loads(shlex.split(re.findall(r"--cli-input-json ('.*?')\n\n", text, re.DOTALL)[0])[0])
        return list(definition["containerProperties"]["command"])
    if case.target == "skypilot":
        return shlex.split(yaml.safe_load(text)["run"].splitlines()[-1])[2:]
    line = next(line for line in text.splitlines() if line.startswith('  "$image"'))
    return shlex.split(line)[1:]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_the_job_runs_the_command_line_that_was_asked_for(case: Case) -> None:
    """Quotes, dollars, backticks and other scripts come through every layer as they were written."""
    job, exported = carry_out(case)
    words = words_of(case, exported.text)
    assert words == list(job.arguments)
    for word in (word for word in case.words if "=" in word and not word.startswith("resources=")):
        assert word in words
    assert not any(word.startswith("resources") for word in words)


def test_the_files_that_go_along_are_what_they_were() -> None:
    found = documents(of("kubernetes", "small"))
    items = {item["path"]: item["key"] for item in volume(found["Job"], "job")["configMap"]["items"]}
    with in_folder():
        for name in ("tickets.yaml", "data/tickets.jsonl", "data/ticket.schema.json"):
            assert found["ConfigMap"]["data"][items[name]] == Path(name).read_text()


def test_the_files_as_a_pod_sees_them_are_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet lays them out as links into a folder of its own, and the image limits what a manifest may name."""
    for label in ("small", "large", "sweep"):
        [case] = [case for case in CASES if (case.target, case.label) == ("kubernetes", label)]
        job, exported = carry_out(case)
        found = documents(exported.text)
        work = tmp_path / label
        (work / "job" / "..2026").mkdir(parents=True)
        (work / "job" / "..data").symlink_to("..2026")
        for item in volume(found["Job"], "job")["configMap"]["items"]:
            path = work / "job" / "..data" / item["path"]
            path.parent.mkdir(exist_ok=True)
            path.write_text(found["ConfigMap"]["data"][item["key"]])
            top = Path(item["path"]).parts[0]
            if not (work / "job" / top).is_symlink():
                (work / "job" / top).symlink_to(Path("..data") / top)
        monkeypatch.chdir(work)
        monkeypatch.setenv("RUNNER_ROOTS", "/data:/models")
        words = words_of(case, exported.text)
        assert words[:2] == ["run", "/work/job/tickets.yaml"]
        overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        manifest = open_manifest(Path("job/tickets.yaml"), overrides)
        assert identify(manifest) == job.run_id
        assert all(path.is_file() for path in source_files(manifest))


def volume(job: Any, name: str) -> Any:
    [found] = [one for one in job["spec"]["template"]["spec"]["volumes"] if one["name"] == name]
    return found


def test_no_key_is_written_only_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "JUDGE_KEY", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"canary-{name}-0123456789")
    for case in CASES:
        text = carry_out(case)[1].text
        assert "canary" not in text and "JUDGE_KEY" in text, case.file


@pytest.mark.parametrize("where", ["--set", "manifest"])
def test_a_login_in_a_url_makes_no_job(where: str, tmp_path: Path) -> None:
    text = (ROOT / "tests/launch/job/tickets.yaml").read_text()
    url = "https://me:canary-0123456789@data.example.com/rows.jsonl"
    (tmp_path / "m.yaml").write_text(
        text.replace("data/tickets.jsonl", url if where == "manifest" else "s3://b/x.jsonl")
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ticket.schema.json").write_text("{}")
    words = ("--set", f"data.train={url}") if where == "--set" else ()
    code, screen = call("export", "kubernetes", str(tmp_path / "m.yaml"), "--out", "s3://b/p", *words)
    assert (code, "export/secret" in screen, "canary" in screen) == (Exit.MANIFEST, True, False)


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=40)
LOOKALIKES = st.sampled_from(
    ["yes", "No", "on", "y", "null", "~", "1e5", "0o17", "017", "1:30", "2024-01-01", ".5", "=", "*x"]
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(TEXTS.filter(str.strip), st.one_of(TEXTS, LOOKALIKES).filter(bool), min_size=1))
def test_every_text_is_a_text_again_to_every_reader_of_yaml(values: dict[str, str]) -> None:
    text = as_yaml(values)
    assert yaml.safe_load(text) == values
    for line in text.splitlines():
        plain = re.fullmatch(r"[^\"'|]*: ([^\"'|>{\[].*)", line)
        assert plain is None or re.fullmatch(r"[A-Za-z/_].*", plain[1]), "numbers and dates of any YAML are in quotes"


# --- names ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,59}", fullmatch=True))
def test_every_name_of_an_experiment_is_a_legal_name_everywhere(name: str) -> None:
    with in_folder():
        job = make_job(load_manifest(Path("tickets.yaml"), [f"name='{name}'", f"resources={{ {IMAGE} }}"]))
    for longest in (40, 57, 63):
        short = job.name_of(longest)
        assert len(short) <= longest and LABEL.fullmatch(short) and short[0].isalpha() and "." not in short
        assert short.endswith(f"-{job.run_id}")
    assert re.fullmatch(r"[A-Za-z0-9][\w-]{0,127}", job.title), "as AWS Batch wants it"


# --- what is refused ------------------------------------------------------------------------------------------------


def refused(target: str, resources: str, *overrides: str, out: str | None = None, at: str | None = None) -> set[str]:
    """The codes and keys of what speaks against an export."""
    with in_folder():
        manifest = load_manifest(Path("tickets.yaml"), [f"resources={{ {resources} }}", *overrides])
        try:
            found = export(target, manifest, make_job(manifest, out=out, at=at)).findings
        except RunnerError as error:
            found = error.problems
    assert all(problem.fix for problem in found)
    return {f"{problem.code} {problem.where.key or problem.where.path} {problem.severity}" for problem in found}


SWEEP = "sweep={ seeds: [1, 2] }"
AWS = f"{IMAGE}, cpus: 1, memory_gb: 1, queue: q, keys_from: 'arn:aws:secretsmanager:x:123456789012:secret:k'"
ROLE = "role: 'arn:aws:iam::123456789012:role/r'"


@pytest.mark.parametrize(
    ("target", "resources", "told"),
    [
        ("kubernetes", "volume: runs", "export/no-image resources.image error"),
        ("kubernetes", IMAGE, "export/nothing-kept resources.volume error"),
        ("kubernetes", f"{IMAGE}, volume: runs, nodes: 2", "export/nodes resources.nodes error"),
        ("kubernetes", f"{IMAGE}, volume: My_Runs", "export/name resources.volume error"),
        ("kubernetes", f"{IMAGE}, volume: runs, keys_from: a/b", "export/name resources.keys_from error"),
        ("kubeflow", f"{IMAGE}, nodes: 2", "export/shared-disk resources.volume error"),
        ("skypilot", f"{IMAGE}, volume: 's3://b', gpus: 1", "export/gpu resources.gpu error"),
        ("skypilot", f"{IMAGE}, volume: 's3://b', max_hours: 3", "export/max-hours resources.max_hours error"),
        ("skypilot", f"{IMAGE}, volume: 's3://b', nodes: 2", "export/shared-disk resources.volume error"),
        ("skypilot", f"{IMAGE}, volume: 's3://b', queue: q", "export/elsewhere resources.queue note"),
        ("slurm", f"{IMAGE}, volume: runs", "export/folder resources.volume error"),
        ("slurm", f"{IMAGE}, spot: true", "export/elsewhere resources.spot note"),
        ("awsbatch", f"{IMAGE}, volume: fs-1", "export/no-files runner export error"),
        ("awsbatch", f"{IMAGE}, volume: fs-1", "export/missing resources.queue error"),
        ("awsbatch", f"{IMAGE}, volume: fs-1", "export/no-keys resources.keys_from error"),
        ("awsbatch", f"{AWS}, volume: runs", "export/name resources.volume error"),
        ("awsbatch", f"{AWS}, volume: fs-1", "export/no-role resources.role error"),
        ("awsbatch", f"{AWS}, {ROLE}, volume: fs-1, nodes: 2", "export/nodes resources.nodes error"),
        ("awsbatch", f"{AWS}, {ROLE}, volume: fs-1, max_attempts: 11", "export/attempts resources.max_attempts error"),
        ("awsbatch", f"{AWS}, {ROLE}, volume: fs-1, gpu: H100", "export/elsewhere resources.gpu note"),
    ],
)
def test_what_a_target_cannot_do_is_told_with_its_place(target: str, resources: str, told: str) -> None:
    assert told in refused(target, resources)


def test_what_only_the_rest_of_the_manifest_makes_impossible() -> None:
    two = f"{IMAGE}, nodes: 2, volume: runs"
    assert "export/shared-disk resources.nodes error" in refused("kubeflow", two, out="s3://b/p")
    assert "export/sweep runner export error" in refused("kubeflow", f"{IMAGE}, volume: runs", SWEEP)
    endless = refused("skypilot", f"{IMAGE}, volume: 's3://b'", "budget={ max_idle_attempts: null }")
    assert "export/endless runner export error" in endless
    assert "export/small-model resources.nodes note" in refused("kubeflow", two, "approach.model=smollm2-135m-instruct")
    elsewhere = refused("kubernetes", f"{IMAGE}, volume: runs", "data.train=/nowhere/rows.jsonl")
    assert "export/not-sent runner export warning" in elsewhere
    assert "export/nothing-kept resources.volume error" in refused("kubernetes", f"{IMAGE}, volume: r", out="/tmp/x")
    assert refused("kubernetes", f"{IMAGE}, volume: r", out="/out/x") == set()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--out", "runs"), Exit.USAGE, "export/place"),
        (("--out", "ftp://host/x"), Exit.USAGE, "export/place"),
        (("--at", "my.yaml"), Exit.USAGE, "export/place"),
        (("--output", "tickets.yaml"), Exit.USAGE, "export/output"),
        (("--output", "data/tickets.jsonl"), Exit.USAGE, "export/output"),
        (("--point", "0"), Exit.USAGE, "sweep/no-such-point"),
        (("--set", "data.train=data/gone.jsonl"), Exit.INPUT_MISSING, "data/missing"),
        (("--set", "approach.model=./model"), Exit.MANIFEST, "export/model-folder"),
    ],
)
def test_a_command_line_that_makes_no_job_is_told_why(
    words: tuple[str, ...], code: Exit, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_folder():
        found, screen = call("export", "kubernetes", "tickets.yaml", "--set", "resources.volume=runs", *words)
    assert (found, told in screen) == (code, True), screen


def test_slurm_runs_in_the_folder_where_it_was_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("export", "slurm", str(ROOT / "tests/launch/job/tickets.yaml"))
    code, screen = call(*words)
    assert (code, "export/outside" in screen) == (Exit.MANIFEST, True)
    monkeypatch.chdir(ROOT)
    code, _ = call(*words, "--out", "/shared/mine", "--output", str(tmp_path / "job.sh"))
    text = (tmp_path / "job.sh").read_text()
    assert code == Exit.DONE
    assert 'folder="$SLURM_SUBMIT_DIR"/tests/launch/job' in text
    assert "--bind /shared/mine:/shared/mine" in text and "--out /shared/mine" in text


def test_one_point_of_a_sweep_is_a_job_of_its_own(tmp_path: Path) -> None:
    """Which makes the same run as the point does within its sweep."""
    with in_folder():
        words = ("export", "kubeflow", "tickets.yaml", "--set", "sweep={seeds: [7, 8]}", "--set", "resources.volume=r")
        assert call(*words, "--point", "1", "--output", str(tmp_path / "job.yaml"))[0] == Exit.DONE
        second = points(load_manifest(Path("tickets.yaml"), ["sweep={seeds: [7, 8]}"]))[1]
    job = documents((tmp_path / "job.yaml").read_text())["TrainJob"]
    assert job["metadata"]["name"].endswith(second.run_id)
    assert "seed=8" in job["spec"]["trainer"]["args"]


def test_a_job_of_an_array_of_aws_batch_knows_its_point() -> None:
    index = {"AWS_BATCH_JOB_ARRAY_INDEX": "1"}
    with in_folder():
        point = chosen_point(load_manifest(Path("tickets.yaml"), ["sweep={seeds: [7, 8]}"]), None, index)
        assert point is not None and point.number == 1
        assert chosen_point(load_manifest(Path("tickets.yaml")), None, index) is None, "an array of somebody else's"


def test_files_too_large_to_go_along_have_a_cure(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "x", "completion": "y"}\n' * (MOST_BYTES // 30))
    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        f"name: m\ndata: {{train: rows.jsonl}}\napproach: {{kind: lora, model: org/m@1}}\ngate: {{task: style}}\n"
        f"resources: {{{IMAGE}, volume: runs}}\n"
    )
    code, screen = call("export", "kubernetes", str(manifest))
    assert (code, "export/too-large" in screen, "--at" in screen) == (Exit.MANIFEST, True, True)
    assert call("export", "kubernetes", str(manifest), "--at", "/out/m.yaml")[0] == Exit.DONE
    assert call("export", "skypilot", str(manifest), "--set", "resources.volume=s3://b")[0] == Exit.DONE


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_job_is_on_standard_output_and_everything_else_beside_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runner", "export", "kubernetes", "tests/launch/job/tickets.yaml"]
    command += ["--set", "resources.volume=runs"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    assert set(documents(done.stdout)) == {"ConfigMap", "Job"}
    assert done.stderr.splitlines()[-1].startswith("next    kubectl apply --server-side -f ")
    done = subprocess.run(
        [*command, "--out", "x"], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert (done.returncode, done.stdout, "export/place" in done.stderr) == (Exit.USAGE, "", True)
    file = tmp_path / "job file.yaml"
    done = subprocess.run(
        [*command, "--output", str(file)], capture_output=True, text=True, cwd=ROOT, env=environment, check=True
    )
    assert done.stdout == "" and set(documents(file.read_text())) == {"ConfigMap", "Job"}
    assert shlex.split(done.stderr.splitlines()[-1])[-1] == str(file)
