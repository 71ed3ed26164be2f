-- Where whoever did it came from: a uid, an address. Then it is a line of the audit log too.
ALTER TABLE history ADD COLUMN origin TEXT;
CREATE INDEX history_author ON history (at_us, id) WHERE author IS NOT NULL;
