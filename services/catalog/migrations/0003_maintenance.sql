-- What is done to a repository by itself; times in milliseconds. NULL: only by hand. Repositories of
-- before get what a new one gets.
ALTER TABLE repositories
  ADD COLUMN collect_repeat_ms bigint DEFAULT 86400000,
  ADD COLUMN undo_ms bigint NOT NULL DEFAULT 604800000,
  ADD COLUMN verify_repeat_ms bigint,
  ADD COLUMN save_repeat_ms bigint DEFAULT 86400000,
  ADD COLUMN verify_bytes_per_second bigint NOT NULL DEFAULT 0,
  ADD COLUMN collect_bytes_per_second bigint NOT NULL DEFAULT 0;
ALTER TABLE repositories
  ALTER COLUMN collect_repeat_ms DROP DEFAULT,
  ALTER COLUMN undo_ms DROP DEFAULT,
  ALTER COLUMN save_repeat_ms DROP DEFAULT;
