-- How far records have been handed on to each sink. What a sink has not got yet is in the
-- log itself, so whoever appends to that has nothing to do for it.

create table audit_sink (
    name text not null primary key,
    -- The number of the last record that the sink has for certain.
    delivered bigint not null,
    -- Which process has its turn; none where none has.
    holder text,
    -- Grows with every change. Whoever changes the row names what it was: so of several
    -- processes one does, and nobody compares clocks.
    beat bigint not null default 0
);
