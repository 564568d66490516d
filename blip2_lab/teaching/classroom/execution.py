"""nbgrader's preprocessors for a submission: `RestoreCells` puts deleted cells back, `RunCells` runs the cells.

Notes:

* `RunCells` is nbgrader's Execute. A cell that loops is interrupted; one that cannot be interrupted, or that ends the
  kernel, is left out, and the notebook starts again without it. So what was right before and after still counts.
* A cell's limit counts processor seconds, so a busy machine does not cost a student points. A cell that waits uses
  none: a second limit counts the seconds of the clock.
* Before a check's cell runs, `checks` is imported anew, as it stands on the disk, and the library's functions are put
  back (originals.py): a student who has put something else in their place gains nothing.
* nbgrader gives no points where anything was written to stderr. A warning is no mistake: in a check's cell that has no
  error, stderr counts as stdout.
* A student's code runs with the rights of the person who grades, and can read and write files. Grade in a container
  where you do not trust the students.

Paper: none. Notebooks: all with exercises.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient.exceptions import DeadKernelError
from nbclient.util import ensure_async
from nbformat import NotebookNode
from nbgrader.preprocessors import Execute, NbGraderPreprocessor
from nbgrader.utils import is_grade
from traitlets import Integer

#: Executed once, before the first cell.
REMEMBER = """\
import sys as _sys
import blip2_lab.teaching.checks as _checks
from blip2_lab.teaching.classroom import originals as _originals
_sys.modules["blip2_lab as released"] = (_originals.put_back, _originals.remember())
del _checks, _originals
"""
#: In front of a check's cell. It undoes what the student's cells may have done to the checks and to the library.
FRESH_CHECKS = """\
import os as _os, sys as _sys
_put_back, _kept = _sys.modules["blip2_lab as released"]
_put_back(_kept)
for _name in [_name for _name in _sys.modules if _name.startswith("blip2_lab.teaching")]:
    del _sys.modules[_name]
_os.environ["NBGRADER_EXECUTION"] = "autograde"
from blip2_lab.teaching import checks
"""
TIMED_OUT = "CellTimeoutError"
NOT_RUN = "NotRun"
OUT_OF_MEMORY = "MemoryError", "allocate memory", "not enough memory"  #: as Python and torch (by system) say it
ANSWERS_WITHIN = 60  #: seconds within which an interrupted cell must end


# --- Deleted cells --------------------------------------------------------------------------------------------------


class RestoreCells(NbGraderPreprocessor):
    """Cells of the release that the submission lacks are put back where they stood."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        course, found = self.parent.parent.coursedir, resources["nbgrader"]
        folder = course.format_path(course.release_directory, ".", found["assignment"])
        released = Path(folder) / f"{found['notebook']}.ipynb"
        return restore(nb, nbformat.read(released, as_version=4)), resources


def restore(submitted: NotebookNode, released: NotebookNode) -> NotebookNode:
    """The submission with the release's missing cells; cells of the release have its type and nbgrader metadata."""
    place = 0
    for cell in released.cells:
        index = _index(submitted.cells, cell)
        if index is None:
            submitted.cells.insert(place, copy.deepcopy(cell))
        else:
            place = index
            if "nbgrader" in cell.metadata:
                submitted.cells[index].metadata["nbgrader"] = copy.deepcopy(cell.metadata["nbgrader"])
        place += 1
    return submitted


def _index(cells: list[NotebookNode], wanted: NotebookNode) -> int | None:
    """Where a cell of the release stands: by its id, by nbgrader's, or by its text (other editors make new ids)."""
    grade_id = _grade_id(wanted)
    for same in (
        lambda cell: cell.get("id") == wanted.get("id") and cell.cell_type == wanted.cell_type,
        lambda cell: grade_id is not None and _grade_id(cell) == grade_id,
        lambda cell: cell.source == wanted.source and cell.cell_type == wanted.cell_type,
    ):
        found = [i for i, cell in enumerate(cells) if same(cell)]
        if found:
            return found[-1]
    return None


def _grade_id(cell: NotebookNode) -> str | None:
    return cell.metadata.get("nbgrader", {}).get("grade_id")


# --- Running --------------------------------------------------------------------------------------------------------


class RunCells(Execute):
    """Runs a submission's cells, whatever they do, and checks with fresh checks."""

    processor_seconds = Integer(600, help="processor seconds that a cell may take").tag(config=True)
    timeout = Integer(1800, help="seconds that a cell may take, waiting included").tag(config=True)
    notebook_seconds = Integer(7200, help="seconds after which no further cell is begun").tag(config=True)
    max_characters = Integer(100_000, help="characters of output that are kept of a cell").tag(config=True)
    max_restarts = Integer(6, help="how often a notebook is begun again after its kernel has ended").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict, km: Any = None) -> tuple[NotebookNode, dict]:
        self._left_out: dict[int, str] = {}
        self._end = time.monotonic() + self.notebook_seconds
        self.raise_on_iopub_timeout = False  # a flood of output may drown the message that a cell has ended
        while True:
            self._running: int | None = None
            self._remembered = False
            try:
                return super().preprocess(nb, resources, km)
            except DeadKernelError:
                if self._running is None or len(self._left_out) > self.max_restarts:
                    raise
                self._left_out.setdefault(self._running, "it ended the kernel")

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        if cell.cell_type != "code":
            return cell, resources
        reason = self._left_out.get(index)
        if reason is None and time.monotonic() > self._end:
            reason = f"the notebook has used up its {self.notebook_seconds} seconds"
        if reason is not None:
            told = [f"Not run: {reason}."]
            cell.outputs = [nbformat.v4.new_output("error", ename=NOT_RUN, evalue=reason, traceback=told)]
            return cell, resources
        if not self._remembered:
            self.wait_for_reply(self.kc.execute(REMEMBER, silent=True))
            self._remembered = True
        self._running, self._written = index, 0
        source = cell.source
        if is_grade(cell):
            cell.source = FRESH_CHECKS + source
        try:
            cell, resources = super().preprocess_cell(cell, resources, index)
        finally:
            cell.source = source
        if is_grade(cell) and not any(output.output_type == "error" for output in cell.outputs):
            cell.outputs = [_without_a_mark(output) for output in cell.outputs]
        return cell, resources

    async def _async_poll_for_reply(
        self, msg_id: str, cell: NotebookNode, timeout: int | None, output: asyncio.Future, alive: asyncio.Future
    ) -> dict[str, Any]:
        """nbclient's, with a limit in processor seconds, and a cell that goes on after an interrupt ends the kernel."""
        kernel = self.km.provisioner.pid
        began, used = time.monotonic(), _processor_seconds(kernel)
        reply = asyncio.ensure_future(super()._async_poll_for_reply(msg_id, cell, None, output, alive))
        try:
            while not (await asyncio.wait({reply}, timeout=1))[0]:
                waited = time.monotonic() - began
                if _processor_seconds(kernel) - used > self.processor_seconds or (timeout and waited > timeout):
                    return await self._stop(reply)
            return reply.result()
        finally:
            reply.cancel()
            alive.cancel()

    async def _stop(self, reply: asyncio.Future) -> dict[str, Any]:
        """Interrupt the cell that runs; its reply then says that it took too long."""
        self._left_out[self._running] = "it ran too long"  # should the notebook begin again
        await ensure_async(self.km.interrupt_kernel())
        if not (await asyncio.wait({reply}, timeout=ANSWERS_WITHIN))[0]:
            self._left_out[self._running] = "it ran too long and could not be stopped"
            raise DeadKernelError("The cell goes on after an interrupt.")
        return reply.result() | {"content": {**self.error_on_timeout, "status": "error"}}

    def output(self, outs: list, msg: dict, display_id: str | None, cell_index: int) -> NotebookNode | None:
        if msg["msg_type"] in ("stream", "display_data", "execute_result") and self._written > self.max_characters:
            return None
        out = super().output(outs, msg, display_id, cell_index)
        if msg["msg_type"] == "stream":
            self._written += len(msg["content"]["text"])
            if self._written > self.max_characters and out is not None:
                out.text = out.text[: self.max_characters] + "\n... the rest of the output was left out ...\n"
        return out


def _processor_seconds(pid: int) -> float:
    """Processor seconds of a process and of all that it started; 0 if it has ended."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            total += sum(member.cpu_times()[:4])  # user and system, then those of children that have ended
    return total


def _without_a_mark(output: NotebookNode) -> NotebookNode:
    """An output that nbgrader takes neither for a failure (stderr) nor for a number of points (a result)."""
    if output.output_type == "stream":
        output.name = "stdout"
    elif output.output_type == "execute_result":
        return nbformat.v4.new_output("display_data", output.data)
    return output


def notes(nb: NotebookNode) -> list[str]:
    """What a teacher should know about a submission: cells that were stopped, checks that failed themselves."""
    found = []
    for cell in nb.cells:
        errors = [output for output in cell.get("outputs", []) if output.output_type == "error"]
        where = _grade_id(cell) or "a cell"
        for error in errors:
            if error.ename == TIMED_OUT:
                found.append(f"{where}: stopped, it ran too long")
            elif error.ename == NOT_RUN:
                found.append(f"{where}: not run, {error.evalue}")
            elif any(sign in f"{error.ename} {error.evalue}" for sign in OUT_OF_MEMORY):
                found.append(f"{where}: not enough memory")
            elif "the check itself failed" in error.evalue:
                found.append(f"{where}: the check itself failed, please look at the answer")
    return found
