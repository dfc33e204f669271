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
    let told = "`external_id` of the profile pod (AWS takes none together with a web identity)";
    for taken in &import.taken {
        // What starts from that role, too.
        let starts_there = ["pod", "hop", "team/last"].contains(&&*taken.from);
        let told =
            if taken.from == "pod" { told.replace(" of the profile pod", "") } else { told.into() };
        assert_eq!(taken.lacks.contains(&told), starts_there, "{}: {:?}", taken.from, taken.lacks);
    }
}

/// Ways to credentials: the profile, and the sections that lead there, its own first.
const WAYS: [(&str, &[(&str, &str)]); 5] = [
    ("token", &[("profile token", "role_arn=R\nweb_identity_token_file=/t\n")]),
    (
        "chain",
        &[
            ("profile chain", "role_arn=R\nsource_profile=hop\n"),
            ("profile hop", "role_arn=R\nsource_profile=pod\n"),
            ("profile pod", "role_arn=R\nweb_identity_token_file=/t\n"),
        ],
    ),
    (
        "keys",
        &[
            ("profile keys", "role_arn=R\nsource_profile=hop\n"),
            ("profile hop", "role_arn=R\nsource_profile=user\n"),
            ("profile user", "aws_access_key_id=AKIA\naws_secret_access_key=k\n"),
        ],
    ),
    (
        "people",
        &[
            ("profile people", "sso_session=corp\nsso_account_id=1\nsso_role_name=r\n"),
            ("sso-session corp", "sso_start_url=https://s.example\nsso_region=eu-west-1\n"),
        ],
    ),
    (
        "ops",
        &[
            ("profile ops", "role_arn=R\nsource_profile=people\n"),
            ("profile people", "sso_session=corp\nsso_account_id=1\nsso_role_name=r\n"),
            ("sso-session corp", "sso_start_url=https://s.example\nsso_region=eu-west-1\n"),
        ],
    ),
];

/// Every setting that AWS documents and that may say something of credentials, some of
/// others' making, and the values that they are given.
const SETTINGS: &[(&str, &str)] = &[
    ("role_arn", "arn:aws:iam::1:role/canary"),
    ("role_session_name", "canary"),
    ("external_id", "canary"),
    ("duration_seconds", "1020"),
    ("mfa_serial", "canary"),
    ("source_profile", "canary"),
    ("credential_source", "canary"),
    ("web_identity_token_file", "/canary"),
    ("credential_process", "/canary"),
    ("login_session", "canary"),
    ("region", "canary"),
    ("endpoint_url", "https://canary"),
    ("ca_bundle", "/canary"),
    ("use_fips_endpoint", "TRUE"),
    ("use_dualstack_endpoint", "true"),
    ("sts_regional_endpoints", "legacy"),
    ("services", "canary"),
    ("sso_session", "canary"),
    ("sso_start_url", "https://canary"),
    ("sso_region", "canary"),
    ("sso_registration_scopes", "canary"),
    ("sso_account_id", "canary"),
    ("sso_role_name", "canary"),
    ("aws_session_token", "canary"),
    ("output", "json"),
    ("max_attempts", "3"),
    ("mfa_process", "canary"),
    ("include_profile", "canary"),
    ("granted_sso_start_url", "https://canary"),
    ("Of_Nobody", "canary"),
];

#[test]
fn each_setting_on_the_way_is_used_or_kept_or_told() {
    let kinds = ["file", "aws-sso", "aws-keys"];
    let said = |text: &str, profile: &str| {
        let import = import_with(text, &[], &[], &kinds);
        let taken = import.taken.into_iter().find(|t| t.from == profile)?;
        Some((tables(std::iter::once(&taken)).unwrap(), taken))
    };
    let text = |sections: &[(String, String)]| -> String {
        sections.iter().map(|(name, settings)| format!("[{name}]\n{settings}")).collect()
    };
    let mut seen = [0; 4];
    for (profile, sections) in WAYS {
        let plain: Vec<_> = sections.iter().map(|(n, s)| (n.to_string(), s.to_string())).collect();
        let (before, taken) = said(&text(&plain), profile).unwrap();
        assert_eq!((&taken.kept[..], &taken.lacks[..]), (&[][..], &[][..]), "{profile}");
        for at in 0..plain.len() {
            for (name, value) in SETTINGS {
                let mut with = plain.clone();
                let others =
                    with[at].1.lines().filter(|line| !line.starts_with(&format!("{name}=")));
                with[at].1 = others.map(|line| format!("{line}\n")).collect();
                with[at].1 += &format!("{name} = {value}\n");
                // What leads to nothing is not taken over, with the reason.
                let Some((after, taken)) = said(&text(&with), profile) else {
                    seen[0] += 1;
                    continue;
                };
                let place = format!("{profile}: {name} in {}", with[at].0);
                let of = if at == 0 { String::new() } else { format!(" of the {}", with[at].0) };
                let told = format!("`{}`{of}", name.to_lowercase());
                let is_told = taken.lacks.iter().any(|lack| lack.starts_with(&told));
                let is_used = after != before;
                // What says nothing of credentials stays where it is.
                let is_kept = ["output", "max_attempts"].contains(name);
                assert_eq!(taken.kept.contains(name), is_kept && at == 0, "{place}");
                assert_eq!(
                    [is_used, is_kept, is_told].iter().filter(|is| **is).count(),
                    1,
                    "{place}: {:?}\n{after}",
                    taken.lacks
                );
                seen[if is_used {
                    1
                } else if is_kept {
                    2
                } else {
                    3
                }] += 1;
            }
        }
    }
    assert!(seen.iter().all(|times| *times >= 10), "{seen:?}");
}

#[test]
fn what_changes_nothing_is_not_told() {
    let text = "[profile pod]\nrole_arn=R\nweb_identity_token_file=/t\nregion=eu-west-1\n\
                endpoint_url=https://sts.example\nuse_fips_endpoint=false\n\
                [profile ops]\nrole_arn=R\nsource_profile=pod\nregion=eu-west-1\n\
                endpoint_url=https://sts.example\nsts_regional_endpoints=regional\n";
    for taken in import(text, &[], &[]).taken {
        assert_eq!(taken.lacks, [""; 0], "{}", taken.from);
    }
    // Endpoints that AWS's tools are told to ignore are none here either.
    let text = text.replace("=regional\n", "=regional\nignore_configured_endpoint_urls=true\n");
    let import = import(&text, &[], &[]);
    let ops = import.taken.iter().find(|taken| taken.from == "ops").unwrap();
    assert_eq!(ops.lacks, [""; 0]);
    assert!(!tables(std::iter::once(ops)).unwrap().contains("endpoint_url"));
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
