-- For how long, in milliseconds, nobody removes a backup of a policy. 0: no lock.
ALTER TABLE policies ADD COLUMN lock_ms bigint NOT NULL DEFAULT 0;
