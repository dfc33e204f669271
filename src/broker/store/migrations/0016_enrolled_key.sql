-- Keys that people enrolled, so that their signatures count while no provider can say who they
-- are. Who has the key-encryption key seals each row: whoever can write here is not who says
-- whose signatures count. What counted once leaves whose key it was: it is nobody else's ever.

create table enrolled_key (
    fingerprint text not null primary key,
    id text not null unique,
    -- The key itself, empty where it was removed.
    public_key text not null,
    -- Whose it is, by their name in the directory, and by which of their ids.
    person text not null,
    issuer text not null,
    subject text not null,
    label text not null,
    state text not null,
    enrolled_at bigint not null,
    -- By whom, as the directory names them, and when; empty and 0 where nobody has yet.
    approver text not null,
    approved_at bigint not null,
    -- When its owner last logged in where this broker saw it.
    seen_at bigint not null,
    -- 1 where it was approved, before it was enrolled anew by the same person.
    counted bigint not null,
    seal bytea not null
);

create index enrolled_key_person on enrolled_key (person);
create index enrolled_key_state on enrolled_key (state, seen_at);
