#!/usr/bin/env bash
# The environments of the peers that do not live in ours: one a peer below $TUNELOOP_PEERS (default ~/.cache/tuneloop-peers).
set -e
top=${TUNELOOP_PEERS:-$HOME/.cache/tuneloop-peers}
torch=${TORCH:-2.13.0}
peer() { # NAME PACKAGE...: torch first, and again last, because a peer may pull another build in
    local name=$1; shift
    python3 -m venv "$top/$name"
    "$top/$name/bin/pip" install -q "torch==$torch"
    "$top/$name/bin/pip" install -q "$@"
    "$top/$name/bin/pip" install -q --no-deps "torch==$torch"
}
peer litgpt litgpt==0.5.13
peer llamafactory llamafactory==0.9.5
# LLaMA-Factory asks for torchaudio and torchvision, which have no build beside this torch without CUDA; text rows need
# neither. Without torchvision it runs, and an empty module stands in for its unconditional import of torchaudio.
"$top/llamafactory/bin/pip" uninstall -q -y torchaudio torchvision
"$top/llamafactory/bin/python" -c 'import site; open(site.getsitepackages()[0] + "/torchaudio.py", "w").close()'
python3 -m venv "$top/datasketch"
"$top/datasketch/bin/pip" install -q datasketch==2.0.0
