-- Records of a person and of a request are found without reading the whole log. What is erased is
-- in no index any more.

create index audit_record_subject on audit_record (subject, sequence);
create index audit_record_request on audit_record (request_id);
