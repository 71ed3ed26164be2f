-- Downtimes. ends_us is the end; once a flexible downtime has started, it is the end of that.
CREATE TABLE downtime (number INTEGER PRIMARY KEY, ends_us INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE INDEX downtime_ends ON downtime (ends_us);
