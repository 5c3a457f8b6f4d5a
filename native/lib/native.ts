// The border between TypeScript and the native data path, as plain data types.
//
// Rules of this border: absent is `null` (`undefined` means a bug); sizes and
// offsets are bytes in a JavaScript number (exact up to 2^53); digests, ids and
// roots are lower-case hex strings; block bytes never cross it. The method lists
// here and in addon/ have the same names in the same order.

/** Where the blocks of one disk are read from. `nbd` is a libnbd URI. */
export type BlockSource = { kind: 'raw'; path: string } | { kind: 'nbd'; uri: string }

/**
 * Which blocks may differ from the base.
 * `all`: nothing is known, every allocated block is read and compared.
 * `bitmap`: an NBD metadata context, for example `qemu:dirty-bitmap:NAME` (nbd sources only).
 * `extents`: flat pairs offset, size in bytes, ascending, not overlapping.
 */
export type ChangedBlocks =
  | { kind: 'all' }
  | { kind: 'bitmap'; context: string }
  | { kind: 'extents'; extents: number[] }

/** A disk of an earlier backup in the same repository. `root` is null for a disk without data. */
export interface StoredDisk {
  root: string | null
  size_bytes: number
}

export interface RepositoryInfo {
  repository_id: string
  encrypted: boolean
  format_version: number
  block_size_bytes: number
  pack_count: number
  /** Bytes of all pack files. */
  stored_bytes: number
  chunk_count: number
}

/** What opens an encrypted repository: a passphrase as UTF-8 (1 to 1024 bytes), or a key of 32 bytes. */
export interface Secret {
  kind: 'passphrase' | 'key'
  bytes: Uint8Array
}

/** One of the secrets that open a repository. */
export interface KeySlot {
  /** 16 hex digits. */
  slot_id: string
  kind: Secret['kind']
  label: string
}

/** Counters of one running or finished move, restore or verification; all in bytes unless named otherwise. */
export interface Progress {
  /** Size of the disk. */
  size_bytes: number
  /** Bytes of the disk before this position are done; equals size_bytes at the end. */
  position_bytes: number
  /** Bytes the source reports as allocated (known from the start when it can say). */
  allocated_bytes: number
  /** Bytes the changed-block view marks; equals allocated_bytes when nothing is known. restoreDifference: bytes that differed. */
  changed_bytes: number
  /** Bytes read from the source (backup) or from packs, before decoding (restore, verify). */
  read_bytes: number
  /** Bytes appended to packs (backup, headers included) or written to the target (restore). */
  stored_bytes: number
  /** Blocks whose content was new to the repository (backup), written (restore) or checked (verify). */
  block_count: number
  /** Bytes of an image that were read and compared (restoreDifference only). */
  compared_bytes: number
}

export interface MovedDisk extends Progress {
  root: string | null
  /** Position a checkpoint of the same point let this move continue at; 0 without one. */
  resumed_at_bytes: number
}

export interface SessionOptions {
  /** Pseudonym of the VM, see Repository.vmPseudonym. */
  vm_pseudonym: string
  /** Point in time all disks of the session show; checkpoints belong to it. */
  point_id: string
  /** Fencing token: an older session of the same VM is fenced, a newer one refuses this one (RUN_FENCED). */
  incarnation: number
  number: number
}

/** How chunks are encoded; one that does not shrink is stored. */
export interface Compression {
  codec: 'lz4' | 'zstd' | 'stored'
  /** Of zstd, 1 (fast) to 19 (small); 0 for the others. */
  level: number
}

export interface MoveDiskOptions {
  disk_id: string
  size_bytes: number
  source: BlockSource
  changed: ChangedBlocks
  /** The same disk in the base backup: same size, else null. Required unless changed is `all`. */
  base: StoredDisk | null
  /** The same disk in the VM's newest backup: same size, else null. What changed little since is stored as a patch. */
  earlier: StoredDisk | null
  compression: Compression
  /** Longest time in ms without an answer of the source before SOURCE_STALLED. */
  stall_timeout_ms: number
}

export interface CommitOptions {
  backup_id: string
  /** Empty for a backup without base. */
  base_backup_id: string
  disks: { disk_id: string; root: string | null; size_bytes: number }[]
  /** Opaque to the native side: the encoded manifest body, at most 16 MiB. */
  body: Uint8Array
  /** Seconds of repository time for which nobody can remove the backup. */
  lock_seconds: number
}

export interface Manifest {
  backup_id: string
  vm_pseudonym: string
  point_id: string
  base_backup_id: string
  /** Counts the backups of one VM in this repository from 1. */
  sequence: number
  incarnation: number
  number: number
  disks: { disk_id: string; root: string | null; size_bytes: number }[]
  body: Uint8Array
  /** Repository time before which nobody removes it; 0 without a lock. */
  lock_until_seconds: number
}

/** Marks beside a manifest. */
export interface ManifestMarks {
  /** Nobody removes it. */
  held: boolean
  /** Repository time at which it was removed, null when it was not; it can be undeleted. */
  removed_seconds: number | null
}

/** What listing found: a manifest, or the path and reason of a file that cannot be trusted. */
export type ListedManifest = ManifestMarks &
  (
    | { kind: 'manifest'; manifest: Manifest }
    | { kind: 'damaged'; path: string; backup_id: string; reason: string; message: string }
  )

/** Seconds since 1970 as the repository counts them: they only go forward, and only as far as time was seen to pass. */
export interface RepositoryTime {
  now_seconds: number
  /** How far the wall clock is ahead, and is not believed. */
  behind_by_seconds: number
}

export interface CollectOptions {
  /** Fencing token: an older collector is fenced, a newer one refuses this one (RUN_FENCED). */
  incarnation: number
  number: number
  /** For so long a removed backup can be had back. */
  undo_window_seconds: number
  /** Of those that listOpenSessions named: sessions without a sign of life, which are fenced. */
  dead_sessions: string[]
  /** Of records that are written anew; 0: no limit. */
  bytes_per_second: number
  /** Says what would be done, changes nothing. */
  dry_run: boolean
}

/** A file of a repository that is not as it was written. */
export interface StoredDamage {
  /** In the repository's folder. */
  path: string
  what: string
  /** Where in the file; a size of 0 when that cannot be told. */
  offset: number
  size_bytes: number
}

export interface StoredReport {
  file_count: number
  checked_bytes: number
  damages: StoredDamage[]
}

export interface PackTotals {
  pack_count: number
  size_bytes: number
}

export interface CollectReport {
  /** Backups that are gone for good, as `{VM pseudonym}/{backup id}`. */
  dropped_backups: string[]
  /** Of all packs that stay, and of the records in them that are needed. */
  stored_bytes: number
  live_bytes: number
  deleted: PackTotals
  /** To be deleted by a later collection, or by this one a moment later. */
  tombstoned: PackTotals
  /** Mostly dead packs whose rest was written anew; `size_bytes` is that of the rest. */
  copied: PackTotals
  /** Tombstoned ones that something refers to again. */
  spared: PackTotals
  /** Tombstoned ones that sessions may still refer to, */
  waiting: PackTotals
  /** and those sessions. */
  waits_for: string[]
}

/** Where a disk is restored to. `raw` must not exist yet; `nbd` is an export of at least the disk's size that reads as zeroes. */
export type RestoreTarget = { kind: 'raw'; path: string } | { kind: 'nbd'; uri: string }

/**
 * An image that is restored over. `raw`: an open file of exactly the disk's size, which the caller has
 * locked and may close meanwhile. `nbd`: an export of the disk's size, or up to 511 bytes more.
 */
export type RestoredImageAddress =
  | { kind: 'raw'; fd: number; path: string }
  | { kind: 'nbd'; uri: string }

/** Work on native threads. progress() never blocks; cancel() makes result reject with CANCELLED. */
export interface Task<T> {
  progress(): Progress
  cancel(): void
  result: Promise<T>
}

export interface Session {
  moveDisk(options: MoveDiskOptions): Task<MovedDisk>
  /** Waits until every pack is durable, checks every pack it refers to, writes the manifest, renames it into place. */
  commit(options: CommitOptions): Promise<Manifest>
  /** Gives up: removes temporary files of this session; durable packs stay. Idempotent. */
  abort(): Promise<void>
}

/** Disks that are proven one after the other, or at once: what they share is read once. */
export interface Verification {
  /**
   * Reads every node of the map and every chunk, decodes them and compares their digests; without
   * damage the disk has its root. Damage is in the report, any other failure rejects.
   */
  verifyDisk(disk: StoredDisk): Task<DamageReport>
}

/** Neighbouring bytes of a disk that cannot be had any more, and why the first of them cannot. */
export interface DamagedRange {
  offset: number
  size_bytes: number
  /** BLOCK_CORRUPT or CHUNK_MISSING. */
  reason: string
  message: string
}

export interface DamageReport {
  /** By offset, at most 1,000. */
  ranges: DamagedRange[]
  /** Of all of them. */
  damaged_bytes: number
}

export interface Repository {
  info(): RepositoryInfo
  /** Draws the next incarnation by exclusive create. */
  drawIncarnation(): Promise<number>
  /** Keyed digest of a VM's identity, 32 hex digits; the same identity gives the same pseudonym in one repository. */
  vmPseudonym(identity: string): string
  openSession(options: SessionOptions): Promise<Session>
  /** Manifests of one VM, or of all with null; ascending by VM and sequence. */
  listManifests(vmPseudonym: string | null): Promise<ListedManifest[]>
  /**
   * The backup stays for the undo window, in which it can be undeleted; the next collection after that
   * gives its space back. Errors: BACKUP_NOT_FOUND, BACKUP_HELD, BACKUP_LOCKED.
   */
  removeBackup(vmPseudonym: string, backupId: string): Promise<void>
  /** Errors: BACKUP_NOT_FOUND when its undo window is over. */
  undeleteBackup(vmPseudonym: string, backupId: string): Promise<void>
  /** Nobody removes it until it is released. Errors: BACKUP_NOT_FOUND, also when it is removed. */
  holdBackup(vmPseudonym: string, backupId: string): Promise<void>
  releaseBackup(vmPseudonym: string, backupId: string): Promise<void>
  /** Notes that time has passed; `confirmed` believes the wall clock, but never backwards. */
  advanceTime(confirmed: boolean): Promise<RepositoryTime>
  /** Sessions that are open or were left behind, as `{VM pseudonym}/{writer name}`. */
  listOpenSessions(): Promise<string[]>
  /**
   * Gives back the space of what no backup needs. progress(): size_bytes of all packs, position_bytes
   * of those looked at, stored_bytes that were copied. Errors: RUN_FENCED, COLLECTION_BLOCKED.
   */
  collect(options: CollectOptions): Task<CollectReport>
  restoreDisk(disk: StoredDisk, target: RestoreTarget): Task<Progress>
  /**
   * Reads the image, compares it block by block with the disk, writes only the pages that differ, and
   * makes it durable. What is not written when it fails is as it was.
   */
  restoreDifference(disk: StoredDisk, image: RestoredImageAddress): Task<Progress>
  /** Reads at most so many stored bytes in a second; 0: no limit. */
  openVerification(bytesPerSecond: number): Verification
  close(): void
}

export interface Native {
  /** Encrypted when there is a secret, which gets the first key slot. */
  createRepository(folder: string, secret: Secret | null): Promise<RepositoryInfo>
  /** Errors: REPOSITORY_…, KEY_MISSING (encrypted, and the secret is null), KEY_WRONG. */
  openRepository(folder: string, readOnly: boolean, secret: Secret | null): Promise<Repository>
  /**
   * An encrypted repository whose key is not here: it can be collected, says who it is and which
   * sessions are open; what needs a key is KEY_MISSING.
   */
  openWithoutKey(folder: string, readOnly: boolean): Promise<Repository>
  /** What is in clear of a repository. Errors: REPOSITORY_… */
  readIdentity(folder: string): Promise<{ repository_id: string; encrypted: boolean }>
  /**
   * Compares every stored byte with its digest; needs no key. Damage is in the report, a folder that
   * cannot be listed rejects. progress(): position_bytes were checked, block_count damages found.
   * Reads at most so many bytes in a second; 0: no limit.
   */
  checkStored(folder: string, bytesPerSecond: number): Task<StoredReport>
  listKeySlots(folder: string): Promise<KeySlot[]>
  /** `secret` opens a slot that is there; `label` is kept in clear. Errors: KEY_WRONG. */
  addKeySlot(folder: string, secret: Secret, added: Secret, label: string): Promise<KeySlot>
  /** Errors: KEY_WRONG, NOT_FOUND, KEY_SLOT_LAST. */
  removeKeySlot(folder: string, secret: Secret, slotId: string): Promise<void>
  /**
   * Shuts down the connections to a unix socket at the clients' ends and throws away what they did
   * not read: for a server that waits for a client that hangs. Tells for each who held it (pid 0:
   * nobody whom this user may look at) and why it could not be cut, null when it was.
   */
  cutReaders(socketPath: string): Promise<{ pid: number; failure: string | null }[]>
  /**
   * Takes QEMU's own lock on an image for the open file `fd`: nobody reads or writes beside it until
   * the file is closed. Throws TARGET_IN_USE.
   */
  lockImage(fd: number, path: string): void
  /** Makes an open file durable and drops it from the page cache, so that reads show what the disk holds. */
  forgetCached(fd: number, path: string): Promise<void>
  versions(): { node_api: number; libnbd: string; lz4: string; zstd: string }
}
