"""The command line."""

import resource
import signal
import sys

# Before the imports that take a while: Ctrl-C ends us as it ends any program, without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# Under ulimit -f Python would leave cut-off bytecode behind, and stumble over it ever after.
if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
    sys.dont_write_bytecode = True

from .main import main

__all__ = ["main"]
