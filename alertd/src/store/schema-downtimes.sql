-- Announced work; ends_us is when it is over (a flexible one's own end once it has begun).
CREATE TABLE downtime (number INTEGER PRIMARY KEY, ends_us INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE INDEX downtime_ends ON downtime (ends_us);
