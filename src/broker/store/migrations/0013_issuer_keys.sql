-- The public keys of trusted issuers as they were last fetched, so that a process which
-- starts while an issuer is down has them. Who has the key-encryption key seals them:
-- whoever can write here is not who says whose signatures count.

create table issuer_key_set (
    issuer text not null primary key,
    -- Where they were fetched.
    address text not null,
    -- When they were last known to be the issuer's, by the clock of the database.
    good_at bigint not null,
    -- As the issuer sent them.
    document bytea not null,
    seal bytea not null
);
