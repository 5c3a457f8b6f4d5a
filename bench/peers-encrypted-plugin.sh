# A plugin of the peers harness: the tool `blockferry_encrypted`, as `blockferry` with a repository that
# is encrypted.
. "$(dirname "${BASH_SOURCE[0]}")/peers-plugin.sh"

blockferry_encrypted_have() { blockferry_have; }
blockferry_encrypted_version() { blockferry_version; }
blockferry_encrypted_init() {
  blockferry_start || return 1
  (umask 077 && echo 'correct horse battery' >secret)
  blockferry_run repository create bench "$STORE" --passphrase-file "$PWD/secret" 2>>up.log
}
blockferry_encrypted_backup() { blockferry_backup "$@"; }
blockferry_encrypted_cbt() { blockferry_cbt "$@"; }
blockferry_encrypted_restore() { blockferry_restore "$@"; }
blockferry_encrypted_pids() { blockferry_pids "$@"; }
blockferry_encrypted_done() { blockferry_done "$@"; }
export -f blockferry_start blockferry_backup blockferry_cbt blockferry_restore blockferry_pids blockferry_done
