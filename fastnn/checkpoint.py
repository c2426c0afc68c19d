"""Checkpoints: files with the state of a fit, written while it runs; `Trainer.resume` goes on from them."""

import errno
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from . import _core, callbacks
from ._declare import boolean, integer, warn
from .callbacks import Callback, Logs
from .errors import ModelFileError, ModelVersionError
from .snapshot import Counters, Place, Saved, read

__all__ = ["Checkpoint"]

_STEP_FILE = re.compile(r"step-(\d{12,16})\.safetensors")
_TEMPORARY_FILE = re.compile(r"\.fastnn-(\d+)-[\w-]+\.tmp")
_BEST = "best.safetensors"
_STARTED = time.time()  # of this process, or a little later


# ---- files ----


def find(folder: str) -> list[tuple[int, str]]:
    """(step, path) of the checkpoints in a folder, newest first."""
    matches = map(_STEP_FILE.fullmatch, os.listdir(folder))
    found = [(int(match[1]), os.path.join(folder, match[0])) for match in matches if match]
    return sorted(found, reverse=True)


def read_newest(folder: str) -> tuple[_core.Engine, Saved]:
    """The newest checkpoint that is whole; a UserWarning names each newer one that is not."""
    engine, saved, damaged = _read_whole(folder)
    for message in damaged:
        warn(f"A checkpoint is damaged; {os.path.basename(saved.path)} is taken instead. {message}")
    return engine, saved


def _read_whole(folder: str) -> tuple[_core.Engine, Saved, list[str]]:
    """The newest checkpoint that is whole, and what is wrong with each newer one."""
    damaged: list[str] = []
    for _, path in find(folder):
        try:
            return *read(path), damaged
        except ModelVersionError:
            raise
        except ModelFileError as error:
            damaged.append(str(error))
        except FileNotFoundError:
            continue  # another process deleted it meanwhile
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            damaged.append(str(error))  # the disk cannot read it any more
    if damaged:
        raise ModelFileError("no checkpoint can be read. " + " ".join(damaged))
    raise FileNotFoundError(errno.ENOENT, "no checkpoint in this folder", folder)


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # this file system cannot sync folders
            raise
    finally:
        os.close(folder)


def _make_folder(path: str) -> None:
    """A folder that survives a loss of power, and those around it."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    _make_folder(parent)
    with suppress(FileExistsError):  # another process may make it meanwhile
        os.mkdir(path)
    _sync_folder(parent)


def _require_writable(folder: str) -> None:
    probe = os.path.join(folder, f".fastnn-{os.getpid()}-probe.tmp")
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(probe)


def _remove_stale_files(folder: str) -> None:
    """What processes that were killed left behind. One of our number was an earlier process: containers use the same
    few numbers again. One of another number that does not run here may run on another machine: its new files stay.
    """
    matches = [match for match in map(_TEMPORARY_FILE.fullmatch, os.listdir(folder)) if match]
    ours_are_stale = _core.saves_under_way() == 0  # asked after the listing: what is begun since is not in it
    for match in matches:
        pid, path = int(match[1]), os.path.join(folder, match[0])
        with suppress(FileNotFoundError):
            theirs_is_stale = os.stat(path).st_mtime < _STARTED and not _is_running(pid)
            if ours_are_stale if pid == os.getpid() else theirs_is_stale:
                os.unlink(path)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # somebody else's
    return True


# ---- the callback ----


class _Net(callbacks._Net, Protocol):
    def save(self, path: str) -> None: ...


class _Host(callbacks.Host, Protocol):
    """What a Checkpoint uses of its trainer."""

    _place: Place

    @property
    def net(self) -> _Net: ...
    @property
    def _is_ending(self) -> bool: ...
    def _counters(self) -> Counters: ...
    def _save_checkpoint(self, path: str) -> None: ...


class Checkpoint(Callback):
    """Keep the state of a fit in a folder, so that `Trainer.resume` can go on from it with the same bits.

    The files are ``step-000000001200.safetensors`` (by the step since `Trainer.reset`) and ``best.safetensors``. Each
    is written beside its place, synced to the disk and renamed; only then older ones are deleted: whenever the process
    is killed, a whole checkpoint is there.

    Checkpoints are written when the other callbacks have seen the epoch, and in any case where the fit ends: after the
    last epoch, or at the step where `Trainer.request_stop` ends it. An error and Ctrl-C leave those that are there.

    Parameters
    ----------
    dir : str or path-like
        Made when the fit begins, unless it exists. A fit that does not go on from the checkpoints in it is refused.
    every : int or None
        Epochs of the fit between two checkpoints, >= 1; None: none at the ends of epochs but the last.
    every_steps : int, optional
        Also after each step whose number since `Trainer.reset` is a multiple, in the middle of epochs too.
    keep_last : int
        This many checkpoints stay, >= 1.
    keep_best : bool
        Also keep the net of the fit's best epoch so far (``History.best_epoch``) in ``best.safetensors``, a model file
        for `fastnn.load`. A further fit of the same trainer in this folder has a best epoch of its own and replaces it.

    Raises
    ------
    OSError
        At the beginning of the fit: the folder cannot be made or written to. Later: a checkpoint could not be written;
        those before are intact.
    FileExistsError
        At the beginning of the fit: the folder holds another run.

    Examples
    --------
    >>> trainer = fn.Trainer(net, optimizer=fn.Adam(1e-3))
    >>> trainer.fit(x, y, epochs=20, callbacks=[fn.Checkpoint("run")])

    After a crash, with a trainer built alike:

    >>> trainer.resume("run")
    >>> trainer.fit(x, y, epochs=20, callbacks=[fn.Checkpoint("run")])
    """

    trainer: _Host

    def __init__(
        self,
        dir: "str | os.PathLike[str]",
        every: int | None = 1,
        every_steps: int | None = None,
        keep_last: int = 2,
        keep_best: bool = True,
    ) -> None:
        self.dir = os.fsdecode(dir)
        self.every = every if every is None else integer("every", every, 1)
        self.every_steps = every_steps if every_steps is None else integer("every_steps", every_steps, 1)
        self.keep_last = integer("keep_last", keep_last, 1)
        self.keep_best = boolean("keep_best", keep_best)

    def on_fit_begin(self) -> None:
        _make_folder(self.dir)
        self._require_own_folder()
        _remove_stale_files(self.dir)
        _require_writable(self.dir)
        if self.trainer._place.batch == 0 and self._best_is_behind():
            self._keep_if_best()  # an earlier process may have ended between a checkpoint and the best net

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        due = self.every is not None and (epoch + 1) % self.every == 0
        # The first best net needs a checkpoint beside it, or a new start would find the folder of a stranger.
        if due or self._is_step_due() or self.trainer._is_ending or (self.keep_best and not find(self.dir)):
            self._keep_step()
        self._keep_if_best()

    def _written_path(self) -> str:
        return os.path.realpath(self.dir)

    def steps_until_due(self, step: int) -> int | None:
        """How many steps after `step` the next checkpoint inside an epoch comes, if any does."""
        return None if self.every_steps is None else self.every_steps - step % self.every_steps

    def on_step(self, stopped: bool) -> None:
        """Inside an epoch, after some step; `stopped`: the fit ends there."""
        if stopped or self._is_step_due():
            self._keep_step()

    def _is_step_due(self) -> bool:
        return self.every_steps is not None and self.trainer._counters().step % self.every_steps == 0

    def _require_own_folder(self) -> None:
        if not find(self.dir):
            best = os.path.join(self.dir, _BEST)
            if os.path.lexists(best):
                raise FileExistsError(errno.EEXIST, "the best net of another run; give another folder or move it", best)
            return
        try:
            _, newest, _ = _read_whole(self.dir)
        except ModelFileError as error:
            raise FileExistsError(errno.EEXIST, f"the folder holds other checkpoints: {error}", self.dir) from error
        theirs, ours = newest.state.counters, self.trainer._counters()
        hint = "to go on from it call trainer.resume with this folder first, else give another folder"
        if theirs.run != ours.run:
            raise FileExistsError(errno.EEXIST, f"the folder holds a checkpoint of another run; {hint}", newest.path)
        if theirs.step > ours.step:
            text = f"the folder holds a checkpoint that is newer than step {ours.step}, where this fit goes on; {hint}"
            raise FileExistsError(errno.EEXIST, text, newest.path)

    def _keep_step(self) -> None:
        step = self.trainer._counters().step
        self._write(f"step-{step:012d}.safetensors", self.trainer._save_checkpoint)
        older = [path for number, path in find(self.dir) if number < step]
        for path in older[self.keep_last - 1 :]:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def _keep_if_best(self) -> None:
        history = self.trainer.history
        if self.keep_best and history.epochs and history.best_epoch == history.epochs - 1:
            self._write(_BEST, self.trainer.net.save)

    def _best_is_behind(self) -> bool:
        """Whether the best net was written before the newest checkpoint, or not at all."""
        found, best = find(self.dir), os.path.join(self.dir, _BEST)
        if not found:
            return False
        return not os.path.exists(best) or os.stat(best).st_mtime_ns < os.stat(found[0][1]).st_mtime_ns

    def _write(self, name: str, save: Callable[[str], None]) -> None:
        path = os.path.join(self.dir, name)
        try:
            save(path)
        except OSError as error:
            kept = ", ".join(os.path.basename(found) for _, found in find(self.dir)) or "none yet"
            text = f"{error.strerror}: a checkpoint could not be written; those before are intact ({kept})"
            raise OSError(error.errno, text, path) from error
