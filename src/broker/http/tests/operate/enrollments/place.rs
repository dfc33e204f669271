//! A broker with people, and one of them with a key.

use super::*;

pub(super) const PEOPLE: &str = r#"
[person.alice]
ids = [{ issuer = "CORP", subject = "alice" }, { issuer = "CORP", subject = "alice-admin" }]
[person.bob]
ids = [{ issuer = "CORP", subject = "bob" }]
[person.carol]
ids = [{ issuer = "CORP", subject = "carol" }]
"#;

/// Bob and everybody of the group `keys` look after enrolled keys, Alice with her other id, too.
pub(super) fn rules() -> String {
    format!(
        r#"
@id("keepers")
permit (principal, action == Action::"administer", resource)
when {{
    principal in Group::"{CORP}#keys"
    || [User::"{CORP}#bob", User::"{CORP}#alice-admin"].contains(principal)
}}
when {{
    ["enrollments.list", "enrollments.approve", "enrollments.remove"].contains(context.operation)
}};
"#
    )
}

pub(super) struct Place {
    pub(super) dir: tempfile::TempDir,
    pub(super) clock: Arc<Shifted>,
    pub(super) bed: Bed,
}

impl Place {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Shifted::default());
        let (file, policy) = (dir.path().join("people.toml"), dir.path().join("policy.cedar"));
        write(&file, PEOPLE);
        let bed = Bed::with(|options| {
            options.config.directory = Some(Settings { file, max_age: None });
            options.policies += &rules();
            write(&policy, &options.policies);
            options.config.policy.files = vec![policy];
            options.clock = clock.clone();
            change(options);
        })
        .await;
        Self { dir, clock, bed }
    }

    pub(super) fn pass(&self, time: Duration) {
        self.clock.0.fetch_add(time.whole_seconds(), Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> time::OffsetDateTime {
        self.bed.broker.clock.now()
    }

    /// The directory, from now on.
    pub(super) fn people(&self, text: &str) {
        write(&self.dir.path().join("people.toml"), text);
        self.bed.broker.reload_policies().unwrap();
    }

    /// An assertion of somebody.
    pub(super) fn token(&self, sub: &str) -> String {
        self.token_with(sub, json!({}))
    }

    pub(super) fn token_with(&self, sub: &str, more: Value) -> String {
        let at = self.now().unix_timestamp();
        let mut claims = json!({"sub": sub, "iat": at, "exp": at + 300, "n": Uuid::new_v4()});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.bed.key.token(claims)
    }

    pub(super) fn statement(&self, person: &str, key: &PublicKey) -> Statement {
        let made = self.now().replace_nanosecond(0).unwrap();
        Statement {
            broker: self.bed.issuer.clone(),
            nonce: Nonce::random().unwrap(),
            person: person.into(),
            said: Said::Enrollment { key: key.fingerprint(), label: "laptop".into() },
            made,
            expires: made + Duration::hours(1),
        }
    }

    pub(super) fn signed(&self, person: &str, key: &OwnKey) -> String {
        signed(self.statement(person, key.public()), key)
    }

    pub(super) async fn enroll(&self, sub: &str, statement: &str) -> Response {
        let form = [("statement", statement)];
        post(&self.bed, "/v1/enrollments", &self.token(sub), &form).await
    }

    /// Enrolls a key, and returns its id.
    pub(super) async fn enrolled(&self, person: &str, key: &OwnKey) -> String {
        created(&self.enroll(person, &self.signed(person, key)).await)["id"]
            .as_str()
            .unwrap()
            .into()
    }

    pub(super) async fn approve(&self, sub: &str, id: &str) -> Response {
        let path = format!("/v1/enrollments/{id}/approve");
        post(&self.bed, &path, &self.token(sub), &[]).await
    }

    pub(super) async fn remove(&self, sub: &str, id: &str) -> Response {
        let path = format!("/v1/enrollments/{id}/remove");
        post(&self.bed, &path, &self.token(sub), &[("reason", "lost")]).await
    }

    /// An approved key of somebody.
    pub(super) async fn approved(&self, person: &str) -> (OwnKey, String) {
        let key = key();
        let id = self.enrolled(person, &key).await;
        ok(&self.approve("bob", &id).await);
        (key, id)
    }

    pub(super) async fn signer(&self, key: &OwnKey) -> Option<Signer> {
        let book = self.bed.broker.policies();
        self.bed.broker.enrolled_signer(&book, key.public(), self.now()).await.unwrap()
    }

    pub(super) async fn counts_for(&self, key: &OwnKey) -> Option<String> {
        self.signer(key).await.map(|signer| signer.person)
    }

    pub(super) async fn seen(&self, key: &OwnKey) -> time::OffsetDateTime {
        let fingerprint = key.public().fingerprint();
        self.bed.store.enrollment_of(&fingerprint).await.unwrap().unwrap().seen_at
    }
}

pub(super) fn key() -> OwnKey {
    OwnKey::from_pkcs8(&OwnKey::generate().unwrap()).unwrap()
}

pub(super) fn signed(statement: Statement, key: &OwnKey) -> String {
    let signed = Signed::make(statement, |text| key.sign(text)).unwrap();
    sshsig::write(&[signed]).unwrap()
}

pub(super) fn write(path: &std::path::Path, text: &str) {
    let text = text.replace("CORP", CORP);
    crate::host::files::write_private(path, text.as_bytes()).unwrap();
}

#[track_caller]
pub(super) fn created(response: &Response) -> Value {
    let answer = json_of(response);
    assert_eq!(response.status, StatusCode::CREATED, "{answer}");
    answer
}
