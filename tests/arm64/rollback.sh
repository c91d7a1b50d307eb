#!/bin/sh
# On the board: version 1 answers, version 2 replaces it, and a person goes back to 1.
# Prints the state before and after, one JSON object on a line each.
set -eu
PATH=/opt/tinyward/bin:$PATH
patience=$1
mkdir /tmp/board
cd /tmp/board
assets=$(python3 -c 'from agent.demo.owner import ASSETS; print(ASSETS)')

until_runs() {  # a version, or the last words of the daemon
  seconds=0
  until tinyward status -c agent.toml --json 2>/dev/null | python3 -c "
import json, sys
found = json.load(sys.stdin)['state']['pipelines']['digits']
active = found['active']
sys.exit(not (active and active['version'] == $1 and found['state'] == 'active'))
" 2>/dev/null; do
    seconds=$((seconds + 1))
    if [ "$seconds" -gt "$patience" ]; then
      cat daemon.log >&2
      exit 1
    fi
    sleep 1
  done
}

tell() {
  tinyward status -c agent.toml --json | python3 -c '
import json, sys
print(json.dumps(json.load(sys.stdin)["state"]))'
}

for version in 1 2; do
  tinyward pack "$assets/digits-$version/pack.toml" -o "digits-$version.bundle" >&2
done
head -c 24 /dev/urandom | base64 > passphrase
tinyward repo init fleet-repo --passphrase-file passphrase >&2
tinyward repo add fleet-repo digits-1.bundle digits-2.bundle >&2
tinyward repo assign fleet-repo group:all digits=1 >&2
tinyward repo publish fleet-repo --passphrase-file passphrase >&2
cp fleet-repo/metadata/1.root.json root.json
cat > agent.toml <<EOF
state_dir = "state"
[[pipeline]]
name = "digits"
model = "digits"
source = {kind = "files", path = "$assets/digits-stream.npz", array = "images", rate = 20.0, loop = true}
sinks = [{kind = "count"}]
[update]
repository = "fleet-repo"
root = "root.json"
poll_s = 1.0
[local]
listen = "127.0.0.1:0"
EOF
tinyward run --config agent.toml 2> daemon.log &
daemon=$!
until_runs 1
tinyward repo assign fleet-repo group:all digits=2 >&2
tinyward repo publish fleet-repo --passphrase-file passphrase >&2
until_runs 2
tell
tinyward update rollback --yes -c agent.toml >&2
until_runs 1
tell
kill "$daemon"
wait "$daemon"
