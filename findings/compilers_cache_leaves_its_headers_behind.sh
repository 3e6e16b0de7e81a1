#!/usr/bin/env bash
# torch 2.14.1, x86 with g++: a kept TORCHINDUCTOR_CACHE_DIR does not keep the dearest part of AOTInductor's first compilation.
#
# Guess:     all that the compiler may use again lies in TORCHINDUCTOR_CACHE_DIR: who keeps that folder (a volume of a container, a
#            CI cache, a home directory on a cluster) is spared the cost of a first compilation.
# Behaviour: two precompiled headers of nearly 300 MB together lie in the folder for temporary files, in
#            torchinductor_USER/precompiled_headers, wherever TORCHINDUCTOR_CACHE_DIR points. Where that folder is new they are made
#            again, and only the fifth graph has earned their cost. aot_inductor.precompile_headers=False leaves them out.
# Seen:      the sine of 64 numbers, AMD Zen 4, processor seconds of compilers: 17.6 with headers to be made, 5.6 with headers
#            that are there, 16.3 in another temporary folder with the same cache, 8.3 without headers; 289 MB, none of it in the
#            cache.
# Bitten:    jobs in fresh containers, each of which pays for headers of which it uses one graph; small /tmp, memory-backed ones too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
cat > "$folder/compile.py" <<'PY'
import resource
import sys
import tempfile

import torch
import torch._inductor
from torch.fx.experimental.proxy_tensor import make_fx

x = torch.ones(64)
graph = make_fx(lambda x: [x.sin() * float(sys.argv[2])])(x)
options = {"aot_inductor.package": True, "aot_inductor.output_path": tempfile.mkdtemp()}
if sys.argv[1] == "without":
    options["aot_inductor.precompile_headers"] = False
torch._inductor.aot_compile(graph, (x,), options=options)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime)
PY
export TORCHINDUCTOR_CACHE_DIR="$folder/cache"
compile() { # temporary files, with or without headers, a factor that no graph had before
    mkdir -p "$1"
    TMPDIR="$1" "$folder/venv/bin/python" "$folder/compile.py" "$2" "$3" 2> /dev/null
}
compile "$folder/first" without 2 > /dev/null # which leaves what the processor can do in the cache
made=$(compile "$folder/second" with 3)
there=$(compile "$folder/second" with 4)
anew=$(compile "$folder/third" with 5)
without=$(compile "$folder/third" without 6)
kept=$(find "$folder/cache" -name '*.gch' | wc -l)
megabytes=$(find "$folder/second" -name '*.gch' -print0 | du -cm --files0-from=- | tail -1 | cut -f1)
echo "processor seconds of compilers: headers made $made, there $there, made anew in another temporary folder $anew, left out $without"
echo "headers in TORCHINDUCTOR_CACHE_DIR: $kept; in the folder for temporary files: $megabytes MB"
python3 - "$made" "$there" "$anew" "$without" "$kept" "$megabytes" <<'PY'
import sys

made, there, anew, without, kept, megabytes = map(float, sys.argv[1:])
assert kept == 0, "headers lie in the cache now"
assert megabytes > 100, "headers are small now"
assert anew > 1.5 * there, "they are not made anew in another temporary folder"
assert made - without > 2 * (without - there), "headers pay at once"
print("as stated")
PY
