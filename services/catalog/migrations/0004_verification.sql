-- When a verification last looked at all of a backup, and whether it found damage. NULL: none did.
ALTER TABLE backups
  ADD COLUMN verify_time timestamptz,
  ADD COLUMN damaged boolean NOT NULL DEFAULT false;
