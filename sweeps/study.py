"""Optuna's study of a sweep: which trial comes next, and what became of the others."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState

from sweeps.file import SweepFile
from sweeps.folder import Claim, SweepFolder
from sweeps.space import Scalar, grid_point

STUDY = "sweep"
HOST, MESSAGE, RUN, BEST_EPOCH, BEST_VALUE = "host", "message", "run", "best_epoch", "best_value"


class SweepStudy:
    """The study in the sweep's journal.

    A trial's values depend on the seed and its number only (with bayes also on the results so far), not on who asked
    or how often the sweep was killed.
    """

    def __init__(self, folder: SweepFolder, file: SweepFile) -> None:
        self.folder, self.file = folder, file
        self.num_trials, self._seed = int(folder.facts["num_trials"]), int(folder.facts["seed"])
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", module="optuna")
        self._ask_lock = JournalFileSymlinkLock(str(folder.path / "ask"))
        self._ask_lock.acquire()
        try:
            folder.mend_journal()
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder.journal)))
            self.optuna = optuna.create_study(
                storage=storage, study_name=STUDY, direction=file.spec.metric.goal, load_if_exists=True,
                pruner=_pruner(file),
            )  # fmt: skip
        finally:
            self._ask_lock.release()

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials so far, by number."""
        return self.optuna.get_trials(deepcopy=False)

    def next_trial(self) -> tuple[Trial, Claim] | None:
        """A trial to run now: one that was abandoned, or else a new one; None where there is none at the moment."""
        for frozen in self.trials:
            if frozen.state == TrialState.RUNNING:
                claim = Claim(self.folder, frozen.number)
                if claim.take(foreign=frozen.user_attrs.get(HOST) != platform.node()):
                    still_open = self.trials[frozen.number].state == TrialState.RUNNING  # nobody ended it meanwhile
                    if still_open and not self.folder.is_training(frozen.number):  # Ray's workers hold no claim
                        return self._own(Trial(self.optuna, frozen._trial_id), claim)
                    claim.release()
        self._ask_lock.acquire()
        try:
            return self._ask()
        finally:
            self._ask_lock.release()

    def _ask(self) -> tuple[Trial, Claim] | None:
        begun = [trial for trial in self.trials if trial.state != TrialState.WAITING]
        number = len(begun)
        if number >= self.num_trials:
            return None
        if self.file.spec.method == "grid":
            self.optuna.enqueue_trial(grid_point(self.file.varied, number), skip_if_exists=True)
        self.optuna.sampler = self._sampler(number)
        claim = Claim(self.folder, number)
        if not claim.take():  # before the trial exists, so that nobody sees it without an owner
            return None
        distributions = {name: parameter.distribution() for name, parameter in self.file.varied.items()}
        return self._own(self.optuna.ask(fixed_distributions=distributions), claim)

    def _own(self, trial: Trial, claim: Claim) -> tuple[Trial, Claim]:
        trial.set_user_attr(HOST, platform.node())
        return trial, claim

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = (self._seed * 1_000_003 + number) % 2**32
        if self.file.spec.method == "bayes":
            return optuna.samplers.TPESampler(seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)

    def should_stop(self, trial: Trial, epoch: int) -> bool:
        """Whether early stopping ends the trial after ``epoch``."""
        rule = self.file.spec.early_terminate
        if rule is None or (rule.max_iter is not None and epoch >= rule.max_iter):
            return False
        return trial.should_prune()

    def finish(self, trial: Trial, state: TrialState, facts: Mapping[str, Any]) -> None:
        """Write down how a trial ended; of a finished one `BEST_VALUE` is the result."""
        for name, fact in facts.items():
            trial.set_user_attr(name, fact)
        self.optuna.tell(trial, facts[BEST_VALUE] if state == TrialState.COMPLETE else None, state=state)

    @property
    def is_maximized(self) -> bool:
        """Whether more is better."""
        return self.file.spec.metric.goal == "maximize"

    def best_of(self, values: dict[int, float]) -> tuple[int, float]:
        """The epoch with the best value, and the value; as wandb counts a run of a sweep."""
        choose = max if self.is_maximized else min
        epoch = choose(values, key=lambda key: values[key])
        return epoch, values[epoch]

    def ranked(self) -> list[FrozenTrial]:
        """Trials with a value, the best first: finished ones, then those that were stopped early."""
        sign = -1 if self.is_maximized else 1
        valued = [trial for trial in self.trials if BEST_VALUE in trial.user_attrs]
        return sorted(valued, key=lambda t: (t.state != TrialState.COMPLETE, sign * t.user_attrs[BEST_VALUE], t.number))

    def reached_target(self) -> bool:
        """Whether a finished trial is as good as ``metric.target`` asks."""
        target, ranked = self.file.spec.metric.target, self.ranked()
        if target is None or not ranked or ranked[0].state != TrialState.COMPLETE:
            return False
        best = ranked[0].user_attrs[BEST_VALUE]
        return bool(best >= target if self.is_maximized else best <= target)

    def values_of(self, trial: Trial | FrozenTrial) -> dict[str, Scalar]:
        """The values of the varied parameters, in the file's order."""
        return {name: trial.params[name] for name in self.file.varied if name in trial.params}


def _pruner(file: SweepFile) -> optuna.pruners.BasePruner:
    """Asynchronous successive halving (Li et al., arXiv 1810.05934): the rule of wandb's bands, which never waits.

    wandb's own code compares with the best third at the nearest band, this one with the best third of those that
    reached it so far; the first trial always goes on in both.
    """
    rule = file.spec.early_terminate
    if rule is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=rule.first, reduction_factor=rule.eta)
