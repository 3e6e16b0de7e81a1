#!/usr/bin/env bash
# arviz 0.23.4: the first import on a day fails in some of the processes that make it at the same time.
#
# Guess:     importing a library for plots and diagnostics only reads; workers of a test run or a sampler may do so together.
# Behaviour: unless three successor packages are installed, the import looks into a file of the user's cache for the day of the last
#            warning. If that is another day it warns (a FutureWarning), writes today's date beside that file, always under the
#            same name, and moves it over. Of two processes that do so at once one finds nothing to move: the import raises
#            FileNotFoundError, which `except ImportError` and pytest.importorskip do not take for a missing package.
# Seen:      four processes at once, fifteen times, two cores: 7 of 60 first imports failed; each later one went well.
# Bitten:    parallel tests (pytest-xdist: "different tests were collected"), several ranks or chains that import it, in every fresh
#            container and once a day elsewhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet arviz==0.23.4 numpy==2.4.6
cat > "$folder/together.py" <<'PY'
import os
import subprocess
import sys
import tempfile

# Each process waits until all are there, as workers of one run are.
IMPORT = """
import sys, time, pathlib, numpy, scipy, xarray, pandas, matplotlib.pyplot
here = pathlib.Path(sys.argv[1])
(here / sys.argv[2]).touch()
while len(list(here.iterdir())) < int(sys.argv[3]):
    time.sleep(0.001)
import arviz
"""
PROCESSES, ROUNDS = 4, 15
errors = []
for number in range(ROUNDS):
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as here:
        surroundings = {**os.environ, "XDG_CACHE_HOME": cache}
        started = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", IMPORT, here, str(place), str(PROCESSES)],
                env=surroundings, stderr=subprocess.PIPE, text=True,
            )
            for place in range(PROCESSES)
        ]
        told = [process.communicate()[1].strip().splitlines()[-1:] for process in started]
        errors += [lines[0] for lines in told if lines]
        again = subprocess.run([sys.executable, "-W", "ignore", "-c", "import arviz"], env=surroundings, check=False).returncode
        assert again == 0, "a later import fails too"
print(f"{len(errors)} of {PROCESSES * ROUNDS} first imports failed:", *sorted({line.split(':')[0] for line in errors}))
assert errors and all(line.startswith("FileNotFoundError") for line in errors), "none fails any more"
print("as stated")
PY
export MPLCONFIGDIR="$folder/matplotlib"
"$folder/venv/bin/python" "$folder/together.py"
