-- Removed backups can be undeleted for a while; they are listed only when asked for.
ALTER TABLE backups ADD COLUMN removed boolean NOT NULL DEFAULT false;
