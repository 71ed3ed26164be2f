-- Overrides made with alertctl. Overrides in the config are not stored.
CREATE TABLE override (number INTEGER PRIMARY KEY, ends_us INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE INDEX override_ends ON override (ends_us);
