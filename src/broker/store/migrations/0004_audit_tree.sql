-- The Merkle tree over the audit log, in tiles of 256 hashes: level 0 has those of the
-- records, in the order of their numbers; a hash of a higher level is the root of a
-- whole tile below. Only the last tile of a level ever changes, by growing.

create table audit_tile (
    level bigint not null,
    number bigint not null,
    hashes bytea not null,
    primary key (level, number)
);

-- How many records are in the tree.
alter table audit_head add column tree_size bigint not null default 0;

-- How the record goes into the tree, and what keeps the personal part of it from being
-- guessed. Records from before have no salt.
alter table audit_record add column leaf_version bigint not null default 1;
alter table audit_record add column salt bytea;

-- What was signed: how long the log was and the root of its tree, as a signed note.
create table audit_checkpoint (
    size bigint not null primary key,
    at bigint not null,
    note text not null
);
