//! A broker that knows people by their keys, and what they sign.

use super::*;
use crate::broker::store::Enrollment;

/// A broker, and people with keys.
pub(super) struct Down {
    pub(super) place: Place,
}

impl Down {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Elevation)) -> Self {
        let place = Place::with(|role| {
            let rules = role.elevation.as_mut().unwrap();
            rules.provider_down = Some(ProviderDown::default());
            change(rules);
        });
        Self { place: place.await }
    }

    pub(super) fn now(&self) -> OffsetDateTime {
        self.place.bed.broker.clock.now().replace_nanosecond(0).unwrap()
    }

    pub(super) fn rules(&self) -> String {
        self.place.bed.broker.policies().rules_hash().to_string()
    }

    pub(super) fn says(&self, person: &str, said: Said) -> Statement {
        let made = self.now();
        Statement {
            broker: self.place.bed.issuer.clone(),
            nonce: Nonce::random().unwrap(),
            person: person.into(),
            said,
            made,
            expires: made + time::Duration::minutes(30),
        }
    }

    /// A request of alice's.
    pub(super) fn wants(&self) -> Statement {
        self.says(
            "alice",
            Said::Request {
                subject: Subject {
                    role: "admin".into(),
                    audience: None,
                    scope: None,
                    seconds: 1800,
                    bound_to: None,
                    drill: false,
                },
                rules: self.rules(),
                ticket: None,
                reason: "INC-1 all is down".into(),
            },
        )
    }

    pub(super) fn approves(&self, person: &str, request: &Statement) -> Statement {
        self.says(person, Said::Approval { request: request.hash().unwrap() })
    }

    pub(super) fn uses(&self, request: &Statement) -> Statement {
        let request = request.hash().unwrap();
        self.says("alice", Said::Use { request, bound_to: None })
    }

    /// Enrolls a key of somebody, without its approval.
    pub(super) async fn enrolled(&self, subject: &str, person: &str) -> (OwnKey, String) {
        let key = key();
        let said = Said::Enrollment { key: key.public().fingerprint(), label: "laptop".into() };
        let text = signed(self.says(person, said), &key);
        let response = self.operates(subject, "", &[("statement", &text)]).await;
        let answer = json_of(&response);
        assert_eq!(response.status, StatusCode::CREATED, "{answer}");
        (key, answer["id"].as_str().unwrap().into())
    }

    /// A key of somebody's that counts.
    pub(super) async fn key_of(&self, subject: &str) -> OwnKey {
        self.key_with_id(subject, subject).await.0
    }

    pub(super) async fn key_with_id(&self, subject: &str, person: &str) -> (OwnKey, String) {
        let (key, id) = self.enrolled(subject, person).await;
        let keeper = if person == "erin" { "bob" } else { "erin" };
        let response = self.operates(keeper, &format!("/{id}/approve"), &[]).await;
        assert_eq!(response.status, StatusCode::OK, "{}", json_of(&response));
        (key, id)
    }

    pub(super) async fn operates(
        &self,
        subject: &str,
        path: &str,
        form: &[(&str, &str)],
    ) -> Response {
        // Each time another token: what is below is not below elevations.
        let path = format!("/../enrollments{path}");
        self.place.ask(&self.place.token(subject), (Method::POST, &path), form).await
    }

    /// What the store has of somebody's key.
    pub(super) async fn enrollment(&self, key: &OwnKey) -> Enrollment {
        let fingerprint = key.public().fingerprint();
        self.place.bed.store.enrollment_of(&fingerprint).await.unwrap().unwrap()
    }

    /// Brings statements, as nobody.
    pub(super) async fn brings(&self, text: &str) -> Response {
        self.post("/v1/elevations", &[("statement", text)]).await
    }

    pub(super) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Response {
        let form: Vec<_> = form.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        self.place.bed.post(path, &form).await
    }

    pub(super) async fn brought(&self, text: &str) -> Value {
        let response = self.brings(text).await;
        let answer = json_of(&response);
        assert!(response.status.is_success(), "{answer}");
        answer
    }

    /// What is said of what comes to nothing; nothing is written of it.
    pub(super) async fn refused(&self, text: &str) -> (u16, String) {
        let before = self.place.bed.store.size().await.unwrap();
        let (status, said) = told(&self.brings(text).await);
        assert!(status >= 400, "{status} {said}");
        assert_eq!(self.place.bed.store.size().await.unwrap(), before, "{said}");
        (status, said)
    }

    /// Asks for a token for what somebody signed.
    pub(super) async fn token(&self, text: &str, changes: &[(&str, &str)]) -> Response {
        let kind = ("subject_token_type", TokenType::Statement.urn());
        let changes = [&[kind, ("role", "admin"), ("audience", API)], changes].concat();
        self.place.bed.exchange(text, &changes).await
    }

    pub(super) async fn size(&self) -> u64 {
        self.place.bed.store.size().await.unwrap()
    }
}

pub(super) fn key() -> OwnKey {
    OwnKey::from_pkcs8(&OwnKey::generate().unwrap()).unwrap()
}

pub(super) fn signed(statement: Statement, key: &OwnKey) -> String {
    write(&[Signed::make(statement, |text| key.sign(text)).unwrap()]).unwrap()
}
