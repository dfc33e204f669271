-- Whose tokens are good no more that were issued before a time: a row for all of them,
-- not one for each. It may go once they have all expired.

create table revocation_cutoff (
    kind text not null,
    id text not null,
    before bigint not null,
    made_at bigint not null,
    keep_until bigint not null,
    primary key (kind, id)
);

create index revocation_cutoff_before on revocation_cutoff (before);

-- Tokens that are to be introspected only, by their hash, with what they say and what
-- shows that the broker wrote it.
create table opaque_token (
    hash text not null primary key,
    claims text not null,
    seal bytea not null,
    keep_until bigint not null
);

create index opaque_token_keep_until on opaque_token (keep_until);

-- Tokens live for a day at most, so what was issued lately is what is good.
create index audit_record_at on audit_record (at);
