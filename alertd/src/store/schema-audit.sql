-- Origin of the author: a uid or an address. Entries with an author also form the audit log.
ALTER TABLE history ADD COLUMN origin TEXT;
CREATE INDEX history_author ON history (at_us, id) WHERE author IS NOT NULL;
