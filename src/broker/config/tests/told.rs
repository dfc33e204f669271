//! What tokens, and proxies, are told besides.

use super::{GOOD, load_text};

#[test]
fn what_no_token_could_tell_is_refused_beforehand() {
    let elevated = "[role.deploy.elevation]\nlongest = \"1h\"\napprovals = [{ count = 1 }]\n";
    let down = format!("{elevated}provider_down = {{}}\n");
    let directory = "[directory]\nfile = \"people.toml\"\n";
    let aws = |text: &str| format!("[role.deploy.aws]\ntags = {{ a = \"{text}\" }}\n");
    let claims = |said: &str| format!("[role.deploy.claims]\na = {said}\n");
    for (good, lacking, why) in [
        (claims("\"{person}\"") + directory, claims("\"{person}\""), "there is no [directory]"),
        (aws("{person}") + directory, aws("{person}"), "there is no [directory]"),
        (claims("\"{elevation}\"") + elevated, claims("\"{elevation}\""), "not had by elevation"),
        (claims("[\"{groups}\"]") + elevated, claims("[\"{groups}\"]") + &down, "by signatures"),
        (aws("{claim:x}") + elevated, aws("{claim:x}") + &down, "by signatures"),
    ] {
        load_text(&format!("{GOOD}{good}")).unwrap();
        let error = load_text(&format!("{GOOD}{lacking}")).unwrap_err();
        let said = format!("{error} {:?}", error.causes());
        assert!(said.contains(why) && said.contains("role.deploy"), "{said}");
    }
    let said = claims("[\"{directory_groups}\", \"{subject}\", \"{issuer}\"]") + directory + &down;
    load_text(&format!("{GOOD}{said}")).unwrap();
}

#[test]
fn a_proxy_is_told_in_headers_of_what_its_tokens_can_say() {
    let text = |headers: &str| {
        let audiences = "audiences = [\"https://api.example.com\"]\nmax_ttl = \"1h\"\n";
        format!(
            "{GOOD}claims = {{ groups = [\"{{groups}}\"], name = \"x\", in = {{ a = \"y\" }} }}\n\
             [role.other]\n{audiences}claims = {{ name = [\"x\"] }}\n\
             [authz]\nproxy = \"nginx\"\nproxies = [\"127.0.0.1\"]\n[authz.route.api]\n\
             origins = [\"https://api.example.com\"]\naudience = \"https://api.example.com\"\n\
             headers = {{ {headers} }}\n"
        )
    };
    load_text(&text("Tmpcred-Groups = \"groups\", tmpcred-2 = \"/in/a\"")).unwrap();
    // (Of one role it is the same in all tokens.)
    let of_one =
        text("Tmpcred-Name = \"name\"").replace("headers", "roles = [\"deploy\"]\nheaders");
    load_text(&of_one).unwrap();
    for (bad, why) in [
        ("X-Groups = \"groups\"", "letters and digits alone"),
        ("Tmpcred- = \"groups\"", "letters and digits alone"),
        ("Tmpcred-All-Groups = \"groups\"", "letters and digits alone"),
        ("Tmpcred-All_Groups = \"groups\"", "letters and digits alone"),
        ("Tmpcred-Role = \"groups\"", "says something already"),
        ("Tmpcred-A = \"groups\", TMPCRED-a = \"groups\"", "says something already"),
        ("Tmpcred-Groups = \"group\"", "of none of its roles"),
        ("Tmpcred-Groups = \"/groups/0\"", "of none of its roles"),
        ("Tmpcred-Name = \"name\"", "or a list in each"),
        ("Tmpcred-In = \"in\"", "or a list in each"),
    ] {
        let error = load_text(&text(bad)).unwrap_err();
        let said = format!("{error} {:?}", error.causes());
        assert!(said.contains(why) && said.contains("authz.route.api"), "{bad}: {said}");
    }
}
