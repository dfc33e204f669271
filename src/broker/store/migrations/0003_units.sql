-- Things that can be used up once: whoever adds the row has used the thing up. A row
-- may go once nobody would accept the thing any longer. Times as in the first
-- migration.

create table consumed (
    kind text not null,
    id text not null,
    consumed_at bigint not null,
    keep_until bigint not null,
    primary key (kind, id)
);

create index consumed_keep_until on consumed (keep_until);

insert into consumed (kind, id, consumed_at, keep_until)
    select 'revoked-token', jti, revoked_at, keep_until from revoked_token;

drop table revoked_token;

-- The token that was exchanged for this one, where it was the broker's own.
alter table audit_record add column parent text;

-- How many decisions the row stands for.
alter table audit_record add column count bigint not null default 1;

create index audit_record_jti on audit_record (jti);
