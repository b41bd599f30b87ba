"""A server of a test ends with the test, also with one that was killed: its standard input then ends."""

import os
import signal
import sys
import threading


def end_with_parent():
    def wait():
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=wait, daemon=True).start()
