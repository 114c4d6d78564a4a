"""Programs of a launch that take turns in Triton's interpreter, as they run at once on a GPU."""

import inspect
import random
import threading
from types import FunctionType

from triton.runtime.interpreter import GridExecutor, interpreter_builder


class Launch:
    """All programs of a launch: one runs until it meets others, then chance says who goes on.

    Args:
        function: A program.
        count: How many there are.
        chance: Who goes on.
    """

    def __init__(self, function, count, chance):
        self._function, self._count, self._chance = function, count, chance
        self._waiting = []  # where each program stands in the grid, and its arguments
        self._turn = threading.Condition()
        self._running, self._error = None, None

    def __call__(self, **arguments):
        """Begin a program; the last one that is begun lets all run, and returns when all have."""
        self._waiting.append((interpreter_builder.grid_idx, arguments))
        if len(self._waiting) < self._count:
            return
        threads = [threading.Thread(target=self._run, args=(n,)) for n in range(self._count)]
        self._left = set(range(self._count))
        for thread in threads:
            thread.start()
        self._pass_on()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error

    def meet(self):
        """Let another program go on, or the same one again."""
        me = self._running
        self._pass_on()
        self._wait(me)

    def _run(self, n):
        try:
            self._wait(n)
            self._function(**self._waiting[n][1])
        except BaseException as error:
            self._error = self._error or error
        self._left.discard(n)
        self._pass_on()

    def _pass_on(self):
        with self._turn:
            self._running = self._chance.choice(sorted(self._left)) if self._left else None
            self._turn.notify_all()

    def _wait(self, n):
        with self._turn:
            self._turn.wait_for(lambda: self._running == n or self._error)
        if self._error:
            raise RuntimeError("another program failed")
        interpreter_builder.grid_idx = self._waiting[n][0]


def let_programs_take_turns(monkeypatch, seed):
    """Every launch from now on is a ``Launch``; returns how many of several programs there were."""
    chance, launches, now = random.Random(seed), [], []
    begin, count = GridExecutor.__init__, interpreter_builder.create_atomic_rmw

    def begun(self, fn, arg_names, grid, *rest):
        launch = Launch(fn, grid[0] * grid[1] * grid[2], chance)
        launches.extend([launch] if launch._count > 1 else [])
        now[:] = [launch]
        names = ", ".join(inspect.getfullargspec(fn).args)
        made = {}
        exec(f"def program({names}): launch(**locals())", made)
        scope = {**fn.__globals__, "launch": launch}
        program = FunctionType(made["program"].__code__, scope)
        program.__annotations__ = fn.__annotations__
        begin(self, program, arg_names, grid, *rest)

    def counted(*arguments):
        found = count(*arguments)
        now[0].meet()
        return found

    monkeypatch.setattr(GridExecutor, "__init__", begun)
    monkeypatch.setattr(interpreter_builder, "create_atomic_rmw", counted)
    return launches
