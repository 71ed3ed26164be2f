-- JSON with the data of a decision: the alert of a transition, the ack of an ack. `alertctl replay` repeats them.
ALTER TABLE history ADD COLUMN detail TEXT;
