#!/usr/bin/env bash
# The environments of the peers that do not live in ours: one a peer below $TUNELOOP_PEERS (default /tmp/tl/peers).
set -e
top=${TUNELOOP_PEERS:-/tmp/tl/peers}
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
