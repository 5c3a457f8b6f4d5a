-- As in move.v1.Compression: a codec, and the level of zstd. Policies from before compress with LZ4.
ALTER TABLE policies
  ADD COLUMN codec integer NOT NULL DEFAULT 1,
  ADD COLUMN codec_level integer NOT NULL DEFAULT 0;
