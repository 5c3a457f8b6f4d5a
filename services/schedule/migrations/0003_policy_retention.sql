-- What is kept of the backups of a policy, and the tags they get. Policies from before keep everything.
ALTER TABLE policies
  -- catalog.v1.Retention as JSON; NULL: everything is kept.
  ADD COLUMN retention jsonb,
  -- An array of schedule.v1.VmRetention as JSON.
  ADD COLUMN vm_retentions jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN tags text[] NOT NULL DEFAULT '{}';
