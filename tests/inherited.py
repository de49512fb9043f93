"""What the tests do not take from the shell that starts them: signals, variables, umask.  Imported before NumPy.

A signal that is ignored, as under ``nohup`` or in the background of a script, would be ignored by every child too.  A
handler that does nothing keeps the tests themselves running, and the system gives children the default in its place.
"""

import os
import signal

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
FOREIGN = ("GPUCNN_", "NUMBA_", "OMP_", "OPENBLAS_", "MKL_", "MPL", "CUPY_", "PYTHON", "LC_", "LANG", "MALLOC_")
ALONE = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TZ")
KEPT = ("GPUCNN_DATA_DIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPYCACHEPREFIX")

for kind in IGNORED:
    if signal.getsignal(kind) is signal.SIG_IGN:
        signal.signal(kind, lambda number, frame: None)
for name in list(os.environ):
    if (name.startswith(FOREIGN) or name in ALONE) and name not in KEPT:
        del os.environ[name]
os.environ["LC_ALL"] = "C.UTF-8"
os.umask(0o022)
