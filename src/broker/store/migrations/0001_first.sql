-- The part of SQL that SQLite and PostgreSQL share: TEXT, BIGINT and BYTEA only.
-- Times are microseconds since 1970, in UTC.

create table signing_key (
    kid text not null primary key,
    purpose text not null,
    algorithm text not null,
    state text not null
        check (state in ('prepared', 'published', 'active', 'retired', 'revoked')),
    sealed bytea not null,
    kek_id text not null,
    created_at bigint not null,
    changed_at bigint not null
);

-- At most one key signs.
create unique index signing_key_active on signing_key (purpose, algorithm)
    where state = 'active';

-- One row. Whoever appends to the audit log takes its lock first, by updating it.
create table audit_head (
    id bigint not null primary key check (id = 1),
    last_sequence bigint not null
);

insert into audit_head (id, last_sequence) values (1, 0);

-- Append-only.
create table audit_record (
    sequence bigint not null primary key,
    at bigint not null,
    request_id text not null,
    action text not null,
    decision text not null,
    reason text not null,
    issuer text not null,
    subject text not null,
    client text not null,
    source text not null,
    role text not null,
    audience text not null,
    scope text not null,
    ttl bigint not null,
    jti text,
    policy_id text,
    policy_hash text not null
);

-- One row, written to see whether there is room for more.
create table probe (
    id bigint not null primary key check (id = 1),
    count bigint not null,
    padding text not null
);

insert into probe (id, count, padding) values (1, 0, '');
