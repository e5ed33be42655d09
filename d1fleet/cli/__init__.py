"""The command line."""

import signal

# Before the imports that take a while: Ctrl-C ends us as it ends any program, without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from .main import main

__all__ = ["main"]
