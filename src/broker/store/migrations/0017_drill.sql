-- Whether an elevation only is practised: 0 or 1.

alter table elevation add column drill bigint not null default 0;
