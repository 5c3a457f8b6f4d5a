CREATE TABLE policies (
  name text PRIMARY KEY,
  request_id text NOT NULL,
  vms text[] NOT NULL,
  repository text NOT NULL,
  -- NULL: only by hand.
  repeat_ms bigint,
  level integer NOT NULL,
  skip_quiesce boolean NOT NULL,
  paused boolean NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  -- NULL: nothing becomes due.
  next_run_time timestamptz
);

CREATE TABLE runs (
  run_id text PRIMARY KEY,
  -- Method and request_id of the call that made the run; NULL when the caller gave none.
  request_key text CONSTRAINT runs_request_key UNIQUE,
  kind integer NOT NULL,
  state integer NOT NULL,
  -- Set with the state, so that the indexes below need not know the states.
  ended boolean NOT NULL DEFAULT false,
  vm_identity text NOT NULL,
  vm_display_name text NOT NULL,
  host text NOT NULL,
  repository text NOT NULL,
  -- The VM whose disks the run reads or replaces: one unfinished run each. NULL: it touches none.
  vm_taken text,
  -- What schedule.Run says besides the columns, as JSON.
  detail jsonb NOT NULL,
  -- What was asked for, as it is carried out; never changed.
  plan jsonb NOT NULL,
  -- Points drawn for the run, each before the snapshot service hears of it; the last one counts.
  point_ids text[] NOT NULL DEFAULT '{}',
  -- The last point as the snapshot service gave it; JSON null until it did.
  point jsonb NOT NULL DEFAULT 'null',
  cancel_requested boolean NOT NULL DEFAULT false,
  -- The process that holds the run; NULL: nobody does.
  holder text,
  -- Grows with every claim of any run; the number of the fencing token.
  token_number bigint NOT NULL DEFAULT 0,
  -- Counted up by the holder; an observer takes a run over when it stands still.
  heartbeat bigint NOT NULL DEFAULT 0,
  attempt_count integer NOT NULL DEFAULT 0,
  -- Counts the changes that a watcher can see.
  version bigint NOT NULL DEFAULT 1,
  create_time timestamptz NOT NULL DEFAULT now(),
  start_time timestamptz,
  end_time timestamptz
);

CREATE UNIQUE INDEX runs_one_per_vm ON runs (vm_taken) WHERE NOT ended;
CREATE INDEX runs_unfinished ON runs (create_time, run_id) WHERE NOT ended;
CREATE INDEX runs_newest ON runs (create_time DESC, run_id DESC);
CREATE INDEX runs_of_vm ON runs (vm_identity, create_time DESC);

CREATE SEQUENCE fencing_numbers;

-- One row per repository that this database has written to. A restored or promoted database
-- deletes its rows and so draws anew.
CREATE TABLE incarnations (
  repository_id text PRIMARY KEY,
  incarnation bigint
);
