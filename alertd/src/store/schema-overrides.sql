-- Who was put on call by hand; the config's own overrides are not here.
CREATE TABLE override (number INTEGER PRIMARY KEY, ends_us INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE INDEX override_ends ON override (ends_us);
