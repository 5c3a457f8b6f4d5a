-- What the repositories hold, for listing and search. Every row of backups and disks can be made
-- again from the manifests (RebuildCatalog).

CREATE TABLE repositories (
  name text PRIMARY KEY,
  folder text NOT NULL,
  -- Drawn when the repository was created: one repository has one name here.
  repository_id text NOT NULL UNIQUE,
  request_id text NOT NULL,
  create_time timestamptz NOT NULL
);

CREATE TABLE backups (
  repository text NOT NULL REFERENCES repositories (name) ON DELETE CASCADE,
  backup text NOT NULL,
  vm_identity text NOT NULL,
  vm_display_name text NOT NULL,
  sequence bigint NOT NULL,
  -- Milliseconds since the epoch.
  point_time_ms bigint NOT NULL,
  size_bytes bigint NOT NULL,
  stored_bytes bigint NOT NULL,
  -- The whole message blockferry.catalog.v1.Backup in its binary encoding, named without its
  -- repository. The other columns repeat parts of it for search.
  message bytea NOT NULL,
  PRIMARY KEY (repository, backup)
);

CREATE INDEX backups_newest ON backups (point_time_ms DESC, repository, backup);
CREATE INDEX backups_of_vm ON backups (vm_identity, point_time_ms DESC);
CREATE INDEX backups_of_vm_name ON backups (vm_display_name);

CREATE TABLE disks (
  repository text NOT NULL,
  backup text NOT NULL,
  disk text NOT NULL,
  size_bytes bigint NOT NULL,
  stored_bytes bigint NOT NULL,
  root text NOT NULL,
  PRIMARY KEY (repository, backup, disk),
  FOREIGN KEY (repository, backup) REFERENCES backups (repository, backup) ON DELETE CASCADE
);
