-- The key that all seals follow from, sealed under each key-encryption key that opens it. A
-- database from before has none: there the key-encryption key is in its place.

create table root_key (
    -- The first one has 0, so that of several processes one makes it.
    slot bigint not null primary key,
    kek_id text not null unique,
    sealed bytea not null,
    added_at bigint not null
);
