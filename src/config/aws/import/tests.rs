use super::*;

/// A file with everything that AWS documents of credentials.
const FILE: &str = "
# comment
[default]
region = eu-west-1
output = json

[profile pod]
role_arn = arn:aws:iam::123456789012:role/pod
web_identity_token_file = /var/run/token ; comment
role_session_name = pod-session
region = eu-central-1
duration_seconds = 3600
s3 =
  max_concurrent_requests = 20
output = json

[profile hop]
role_arn = arn:aws:iam::123456789012:role/hop
source_profile = pod
external_id = a=b # c

[profile team/last]
Role_Arn = arn:aws:iam::210987654321:role/last
source_profile = hop
role_session_name = me
region = us-east-1
use_fips_endpoint = true

[profile twin]
role_arn = arn:aws:iam::123456789012:role/twin
web_identity_token_file = /var/run/token

[profile keys]
aws_access_key_id = AKIAEXAMPLE
aws_secret_access_key = canary-secret

[profile role-of-keys]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = keys

[profile role-of-others]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = stored

[profile own]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = own

[profile mfa]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = keys
mfa_serial = arn:aws:iam::123456789012:mfa/me

[profile instance]
role_arn = arn:aws:iam::123456789012:role/x
credential_source = Ec2InstanceMetadata

[profile sso]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = admin

[profile role-of-sso]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = sso

[sso-session corp]
sso_start_url = https://example.awsapps.com/start
sso_region = eu-west-1

[profile process]
credential_process = /opt/other

[profile ours]
credential_process = /usr/bin/tmpcred credential-process prod

[profile circle]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = circle2

[profile circle2]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = circle

[profile dangling]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = nobody

[profile bare]
role_arn = arn:aws:iam::123456789012:role/x

[profile with space]
role_arn = arn:aws:iam::123456789012:role/x
web_identity_token_file = /var/run/token

[profile relative]
role_arn = arn:aws:iam::123456789012:role/x
web_identity_token_file = token
";

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(ToString::to_string).collect()
}

fn import(text: &str, profiles: &[&str], identities: &[&str]) -> Import {
    import_with(text, profiles, identities, &["file"])
}

fn import_with(text: &str, profiles: &[&str], identities: &[&str], kinds: &[&str]) -> Import {
    let (profiles, identities) = (names(profiles), names(identities));
    let keys = names(&["stored"]);
    let existing = Existing { profiles: &profiles, identities: &identities, keys: &keys, kinds };
    read(text, |_| true, existing).unwrap()
}

#[test]
fn web_identities_and_what_is_assumed_from_there_are_taken_over() {
    let import = import(FILE, &[], &[]);
    let taken: Vec<_> = import.taken.iter().map(|t| (t.from.as_str(), t.name.as_str())).collect();
    let expected = [("hop", "hop"), ("pod", "pod"), ("team/last", "team-last"), ("twin", "twin")];
    assert_eq!(taken, expected);
    assert_eq!(import.taken[1].kept, ["output", "s3"]);
    let text = tables(import.taken.iter()).unwrap();
    let table: toml::Table = text.parse().unwrap();
    // One identity for one file.
    let identities = table["identity"].as_table().unwrap();
    assert_eq!(identities.len(), 1);
    assert_eq!(identities["aws-pod"]["token_file"].as_str(), Some("/var/run/token"));
    let last: toml::Table = toml::from_str(
        r#"
        identity = "aws-pod"
        role = "arn:aws:iam::123456789012:role/pod"
        [target]
        type = "aws"
        region = "us-east-1"
        use_fips = true
        session_name = "pod-session"
        [[target.chain]]
        role_arn = "arn:aws:iam::123456789012:role/hop"
        external_id = "a=b"
        [[target.chain]]
        role_arn = "arn:aws:iam::210987654321:role/last"
        session_name = "me"
        "#,
    )
    .unwrap();
    assert_eq!(table["profile"]["team-last"].as_table(), Some(&last));
    assert_eq!(table["profile"]["pod"]["ttl"].as_str(), Some("1h"));
    crate::config::parse("imported", &text).unwrap();
}

#[test]
fn of_everything_else_it_is_said_why_not() {
    let import = import(FILE, &[], &[]);
    let why: BTreeMap<_, _> =
        import.left.iter().map(|l| (l.profile.as_str(), l.because.as_str())).collect();
    for (profile, part) in [
        ("default", "says nothing of credentials"),
        ("keys", "long-lived keys, which are never copied"),
        ("role-of-keys", "starts from the profile keys: it has long-lived keys"),
        ("role-of-others", "starts from the profile stored: it has long-lived keys"),
        ("own", "long-lived keys"),
        ("mfa", "MFA device"),
        ("instance", "credential_source = Ec2InstanceMetadata"),
        ("sso", "log in at IAM Identity Center"),
        ("role-of-sso", "starts from the profile sso: people log in"),
        ("process", "another program"),
        ("ours", "asks tmpcred already"),
        ("circle", "leads in a circle"),
        ("dangling", "starts from the profile nobody: there is no such profile"),
        ("bare", "nothing to assume its role with"),
        ("relative", "no absolute path"),
        ("with space", "AWS's SDKs do not take a profile of such a name"),
    ] {
        assert!(why.get(profile).is_some_and(|why| why.contains(part)), "{profile}: {why:?}");
    }
    assert_eq!(import.taken.len() + import.left.len(), 21);
    let shown = format!("{import:?}");
    assert!(!shown.contains("canary") && !shown.contains("AKIA"), "{shown}");
}

#[test]
fn what_is_there_already_stays_and_names_do_not_collide() {
    let import = import(FILE, &["pod", "team-last"], &["aws-twin", "aws-pod"]);
    let taken: Vec<_> = import.taken.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(taken, ["hop", "twin"]);
    assert!(tables(import.taken.iter()).unwrap().contains("[identity.aws-pod-2]"));
    let left = import.left.iter().find(|left| left.profile == "team/last").unwrap();
    assert_eq!(left.because, "there is a profile team-last already");
}

#[test]
fn what_there_is_an_identity_source_for_is_taken_over() {
    let legacy = "[profile legacy]\nsso_start_url = https://old.example\nsso_region = us-east-1\n\
                  sso_account_id = 123456789012\nsso_role_name = r\n[profile lacking]\nsso_session = none\n";
    let text =
        FILE.replace("source_profile = keys\nmfa", "source_profile = keys\nexternal_id = e\nmfa");
    let text = text.replace(
        "source_profile = sso\n",
        "source_profile = sso\nexternal_id = e\nregion = eu-north-1\nduration_seconds = 1800\n",
    );
    let import = import_with(&(text + legacy), &[], &[], &["file", "aws-sso", "aws-keys"]);
    let taken: Vec<_> = import.taken.iter().map(|t| t.from.as_str()).collect();
    let more = ["legacy", "mfa", "own", "role-of-keys", "role-of-others", "role-of-sso", "sso"];
    assert!(more.iter().all(|name| taken.contains(name)), "{taken:?}");
    let text = tables(import.taken.iter()).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let expected: toml::Table = toml::from_str(
        r#"
        [identity.aws-sso-corp]
        type = "aws-sso"
        start_url = "https://example.awsapps.com/start"
        region = "eu-west-1"
        [identity.aws-sso-legacy]
        type = "aws-sso"
        start_url = "https://old.example"
        region = "us-east-1"
        [identity.aws-keys-keys]
        type = "aws-keys"
        [profile.sso]
        identity = "aws-sso-corp"
        role = "admin"
        target = { type = "aws-sso", account_id = "123456789012" }
        [profile.role-of-sso]
        identity = "aws-sso-corp"
        role = "admin"
        ttl = "30m"
        [profile.role-of-sso.target]
        type = "aws-sso"
        account_id = "123456789012"
        region = "eu-north-1"
        chain = [{ role_arn = "arn:aws:iam::123456789012:role/x", external_id = "e" }]
        [profile.mfa]
        identity = "aws-keys-keys"
        role = "arn:aws:iam::123456789012:role/x"
        [profile.mfa.target]
        type = "aws"
        external_id = "e"
        mfa = { serial = "arn:aws:iam::123456789012:mfa/me" }
        "#,
    )
    .unwrap();
    for kind in ["identity", "profile"] {
        for (name, table_of_it) in expected[kind].as_table().unwrap() {
            assert_eq!(table[kind].get(name), Some(table_of_it), "{name}");
        }
    }
    crate::config::parse("imported", &text).unwrap();
    assert!(!text.contains("canary") && !text.contains("AKIA"), "{text}");
    let why = |name: &str| import.left.iter().find(|l| l.profile == name).unwrap().because.clone();
    assert!(why("keys").contains("long-lived keys"));
    assert!(why("lacking").contains("it lacks `sso_start_url`"));
}

#[test]
fn an_external_id_that_aws_would_not_take_is_not_dropped_without_a_word() {
    let text = FILE.replace("role_session_name = pod", "external_id = e\nrole_session_name = pod");
    let import = import(&text, &[], &[]);
    for taken in &import.taken {
        // What starts from that role, too.
        let starts_there = ["pod", "hop", "team/last"].contains(&&*taken.from);
        let says = taken.lacks.is_some_and(|lacks| lacks.contains("`external_id`"));
        assert_eq!(says, starts_there, "{}", taken.from);
    }
}

#[test]
fn a_file_that_aws_cannot_read_is_an_error_with_its_line() {
    for (bad, line) in
        [("[profile a]\nrole_arn\n", "line 2"), ("x = 1\n", "line 1"), ("[a\n", "line 1")]
    {
        let none = BTreeSet::new();
        let existing =
            Existing { profiles: &none, identities: &none, keys: &none, kinds: &["file"] };
        let error = read(bad, |_| true, existing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.causes()[0].starts_with(line), "{bad:?}: {error:?}");
    }
}
