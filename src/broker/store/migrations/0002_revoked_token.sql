-- Tokens that are good no more although they have not expired. A row may go once
-- nobody accepts the token any longer. Times as in the first migration.

create table revoked_token (
    jti text not null primary key,
    revoked_at bigint not null,
    keep_until bigint not null
);

create index revoked_token_keep_until on revoked_token (keep_until);
