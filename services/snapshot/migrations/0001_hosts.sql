CREATE TABLE hosts (
  name text PRIMARY KEY,
  -- {"qemu": {...}} or {"folder": {...}}, as in the proto.
  platform jsonb NOT NULL,
  request_id text NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now()
);

-- VMs as they were when they ran last: what a backup needs to know of one that is off.
CREATE TABLE known_vms (
  host text NOT NULL REFERENCES hosts ON DELETE CASCADE,
  identity text NOT NULL,
  description jsonb NOT NULL,
  seen_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (host, identity)
);
