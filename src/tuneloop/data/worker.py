"""A worker process: reads an operation and tables from its standard input, writes what the operation gives.

Started by `executors`; the pipes belong to the program that started it, and nothing else is read from them.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys

from tuneloop.data.executors import receive, send


def main() -> None:
    # Ctrl-C reaches the whole group: the program that started us decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stdout = sys.stderr  # what a library prints must not stand between answers
    asks = sys.stdin.buffer
    try:
        op = pickle.loads(receive(asks))
        while True:
            table = pickle.loads(receive(asks))
            try:
                answer = (True, op(table))
            except Exception as error:  # carried to the program that asked, which raises it there
                answer = (False, error)
            send(answers, pickle.dumps(answer, protocol=5))
    except (EOFError, BrokenPipeError):
        return


if __name__ == "__main__":
    main()
