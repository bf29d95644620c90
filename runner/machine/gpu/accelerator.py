"""What the manifest says of the GPU, made true before anything is loaded: required, not to be used, or as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace

from runner.errors import Problem, RunnerError
from runner.machine.gpu import Gpus, look
from runner.machine.gpu.faults import ECC, HIDDEN, LOST, MISSING, Fault, find_fault

INSTEAD = "The processors are used instead. {fix} To have this refused, set approach.accelerator to required; if it is \
meant, to none."
Look = Callable[[Mapping[str, str]], Gpus]
REFUSED = Fault(
    slug="torch-refuses",
    what="The driver shows a GPU, but torch cannot use it.",
    fix='See what says: python -c "import torch; torch.cuda.init()"',
    passing=True,
)


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What was found: the GPUs (None: not looked at), what is wrong with them, whether the driver has a good one."""

    gpus: Gpus | None = None
    problems: Sequence[Problem] = ()
    usable: bool = False


def settle_accelerator(
    accelerator: str, environment: MutableMapping[str, str], look: Look = look, *, refuses: bool = True
) -> Settled:
    """Hides the GPU where none is to be used; otherwise looks for one, and says as warnings what is wrong with it.

    Raises RunnerError (69 where another try may do, else 78) when one is required and none can be used, unless it
    `refuses` nothing: then a warning says so.
    """
    if accelerator == "none":
        environment["CUDA_VISIBLE_DEVICES"] = ""
        return Settled()
    gpus = look(environment)
    found = find_fault(gpus)
    if found is None:
        partly = ((LOST, gpus.num_lost), (ECC, gpus.ecc_errors))
        problems = [replace(told.problem(gpus), severity="warning") for told, number in partly if number]
        return Settled(gpus=gpus, problems=problems, usable=True)
    return Settled(gpus=gpus, problems=_without(accelerator, found, gpus, refuses))


def confirm(accelerator: str, settled: Settled, names: Sequence[str], *, refuses: bool = True) -> list[Problem]:
    """The last word is torch's, which sees the GPUs of these `names`: raises, or warns, as above where it sees none
    although the driver has one."""
    if names or settled.gpus is None or not settled.usable:
        return []
    return _without(accelerator, REFUSED, settled.gpus, refuses)


def _without(accelerator: str, found: Fault, gpus: Gpus, refuses: bool) -> list[Problem]:
    if accelerator == "required":
        problem = found.problem(gpus)
        if refuses:
            raise RunnerError(problem, found.exit_code)
        what = f"{problem.what} A run would end here with {int(found.exit_code)}."
        return [replace(problem, severity="warning", what=what)]
    if found in (MISSING, HIDDEN):  # nothing says that there should be one
        return []
    return [replace(found.problem(gpus), severity="warning", fix=INSTEAD.format(fix=found.fix))]
