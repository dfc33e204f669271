//! What policies and roles ask for that a signature does not tell.

use super::*;
use crate::sshsig::tests::peer::OpenSsh;
use crate::sshsig::{NAMESPACE, PublicKey, Signature};

impl Down {
    /// Other policies besides, from now on.
    fn also(&self, policies: &str) -> crate::error::Result<()> {
        let file = self.place.dir.path().join("policy.cedar");
        let text = self.place.policies.clone() + policies;
        crate::host::files::write_private(&file, text.as_bytes()).unwrap();
        self.place.bed.broker.reload_policies().map(drop)
    }
}

#[tokio::test]
async fn what_is_forbidden_to_groups_of_the_provider_is_not_escaped_by_a_signature() {
    let down = Down::new().await;
    let alice = down.key_of("alice").await;
    down.also(&format!(
        "@id(\"f\") forbid (principal in Group::\"{CORP}#leavers\", action == Action::\"issue\", resource);"
    ))
    .unwrap();
    let (status, said) = down.refused(&signed(down.wants(), &alice)).await;
    assert!(status == 403 && said.contains("by groups of its issuer"), "{said}");
}

#[tokio::test]
async fn where_policies_forbid_by_claims_no_role_can_be_had_by_signatures() {
    let down = Down::new().await;
    let forbid = "@id(\"f\") forbid (principal, action == Action::\"issue\", resource) when { \
                  principal.hasTag(\"flags\") && principal.getTag(\"flags\").contains(\"left\") };";
    let error = down.also(forbid).unwrap_err();
    assert!(
        format!("{error} {:?}", error.causes()).contains("nobody could ever have it that way"),
        "{error}"
    );
    let without = Down::with(|rules| rules.provider_down = None).await;
    without.also(forbid).unwrap();
}

#[tokio::test]
async fn a_login_that_is_asked_for_is_made_up_for_by_a_security_key_that_knows_who_holds_it_alone()
{
    let down = Down::with(|rules| {
        rules.approver_login =
            Login { max_age: Some(Duration::from_secs(300)), ..Login::default() };
        rules.provider_down = Some(ProviderDown { verified_as_login: true });
    })
    .await;
    let (alice, bob) = (down.key_of("alice").await, down.key_of("bob").await);
    let openssh = OpenSsh::new();
    let made = ["ed25519-sk", "-O", "verify-required"];
    let carol = PublicKey::parse(&openssh.key("carol", &made)).unwrap().0;
    let token = openssh.security_key();
    let by_key = |statement: Statement, said: &str| {
        let text = statement.text().unwrap();
        let env = [("SSH_SK_PROVIDER", token.as_path()), ("TEST_SECURITY_KEY", said.as_ref())];
        let signature = openssh.sign_with("carol", NAMESPACE, &[], &text, &env);
        let signatures = vec![Signature::parse(&signature).unwrap()];
        write(&[Signed { statement, signatures }]).unwrap()
    };
    let said = Said::Enrollment { key: carol.fingerprint(), label: "on my keys".into() };
    let form = [("statement", by_key(down.says("carol", said), "unverified"))];
    let form = form.each_ref().map(|(name, text)| (*name, text.as_str()));
    let enrolled = json_of(&down.operates("carol", "", &form).await);
    let id = enrolled["id"].as_str().unwrap_or_else(|| panic!("{enrolled}"));
    let response = down.operates("erin", &format!("/{id}/approve"), &[]).await;
    assert_eq!(response.status, StatusCode::OK);
    let wants = down.wants();
    down.brought(&signed(wants.clone(), &alice)).await;
    let approves = |person: &str| down.approves(person, &wants);
    for text in [signed(approves("bob"), &bob), by_key(approves("carol"), "unverified")] {
        let (status, said) = told(&down.brings(&text).await);
        assert!(status == 403 && said.contains("by a security key"), "{status} {said}");
    }
    // One of just now, and not of a while ago.
    let old = by_key(approves("carol"), "");
    down.place.later(600);
    let (status, said) = told(&down.brings(&old).await);
    assert!(status == 403 && said.contains("made just now"), "{said}");
    let approved = down.brought(&by_key(approves("carol"), "")).await;
    assert_eq!(approved["needs"][0]["have"], json!(["carol"]));
}
