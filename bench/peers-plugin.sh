# A plugin of the peers harness: the tool `blockferry`, through its command and its real services.
#
#   peers.sh -p bench/peers-plugin.sh -t "nbdcopy qcow2 borgfix bound blockferry" CORPUS OUT.json
#
# The services run from init to done and keep their state outside of STORE, which holds the
# repository alone. Their CPU time counts as the tool's; waiting for them counts as its time.
BLOCKFERRY_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export BLOCKFERRY_ROOT

blockferry_run() { "$BLOCKFERRY_ROOT/apps/blockferry/bin/blockferry" "$@" --state "$(cat state)"; }

blockferry_have() { [ -x "$BLOCKFERRY_ROOT/node_modules/.bin/node" ]; }
blockferry_version() { "$BLOCKFERRY_ROOT/apps/blockferry/bin/blockferry" --version; }

# The state lies in /tmp: the path of a unix socket is short.
blockferry_start() {
  mktemp -d /tmp/blockferry-bench-XXXXXX >state
  mkdir names
  "$BLOCKFERRY_ROOT/apps/blockferry/bin/blockferry" up --state "$(cat state)" >up.log 2>&1 </dev/null &
  echo $! >pid
  for _ in $(seq 300); do
    grep -q '^Ready' up.log && return 0
    kill -0 "$(cat pid)" || break
    sleep 0.1
  done
  cat up.log >&2
  return 1
}
blockferry_init() {
  blockferry_start && blockferry_run repository create bench "$STORE"
}

# The VM is what stands before the day: vm-a.2 is the second backup of vm-a.
blockferry_record() { # blockferry_record ID IMAGE [OPTION...]
  local id=$1 image=$2
  shift 2
  blockferry_run backup "$image" --vm "${id%%.*}" --repository bench --output json "$@" >"names/$id.json"
}
blockferry_name() { # the backup that a recorded run made
  python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["backup"])' "names/$1.json"
}

blockferry_backup() { blockferry_record "$1" "$2"; }
blockferry_cbt() { blockferry_record "$1" "$2" --changed-blocks "$4" --base "$(blockferry_name "$3")"; }
blockferry_restore() {
  rm -rf restored
  blockferry_run restore "$(blockferry_name "$1")" --to "$PWD/restored" --format raw
  mv restored/*.raw "$2"
}

blockferry_pids() { # the services and the database below them
  local parent=${1:-$(cat pid)} child
  echo "$parent"
  for child in $(cat /proc/"$parent"/task/*/children 2>/dev/null); do blockferry_pids "$child"; done
}
blockferry_done() {
  kill -INT "$(cat pid)"
  while kill -0 "$(cat pid)" 2>/dev/null; do sleep 0.1; done
  rm -rf "$(cat state)"
}

export -f blockferry_run blockferry_record blockferry_name
