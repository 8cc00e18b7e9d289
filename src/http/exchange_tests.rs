//! Every row of wire.md section 6 that the door itself decides for `/oauth2/token`.

use super::*;

const HASH: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
const RESOURCE: &str = "https://deploy.shop.example.org";

fn evidence() -> Vec<(&'static str, String)> {
    pairs(&[
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", "a.b.c"),
        ("subject_token_type", JWT),
        ("scope", "deploy-prod"),
    ])
}

fn handle() -> Vec<(&'static str, String)> {
    pairs(&[("grant_type", TOKEN_EXCHANGE), ("subject_token", "dtc_x"), ("subject_token_type", TASK_CONTROL)])
}

fn pairs(list: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    list.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// The same form with one more, or another, value.
fn and(mut form: Vec<(&'static str, String)>, name: &'static str, value: &str) -> Vec<(&'static str, String)> {
    form.retain(|(other, _)| *other != name);
    form.push((name, value.to_owned()));
    form
}

fn without(mut form: Vec<(&'static str, String)>, name: &str) -> Vec<(&'static str, String)> {
    form.retain(|(other, _)| *other != name);
    form
}

fn encoded(form: &[(&'static str, String)]) -> String {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&")
}

fn read(form: &[(&'static str, String)]) -> Result<Exchange, Refused> {
    parse(&HeaderMap::new(), "/oauth2/token", Fields::parse(encoded(form).as_bytes()).unwrap())
}

fn reason(form: &[(&'static str, String)]) -> Option<Reason> {
    read(form).err().map(|refused| refused.reason)
}

fn details(rest: &str) -> String {
    format!(r#"[{{"type":"dayfly_task","template":"deploy-prod"{rest}}}]"#)
}

#[test]
fn evidence_with_a_scope_is_an_exchange() {
    let exchange = read(&evidence()).unwrap();
    assert!(
        matches!(exchange.subject, Subject::Evidence { ref token, control_s256: None } if token.expose() == "a.b.c")
    );
    let what = What::Credential { kind: Kind::Jwt, resource: None, actions: None };
    assert_eq!(exchange.ask, Ask { template: "deploy-prod".into(), what, ttl_s: None, ticket: None });
}

#[test]
fn a_handle_needs_no_template() {
    let exchange = read(&and(handle(), "supersede", "30")).unwrap();
    assert!(matches!(exchange.subject, Subject::Handle { supersede_s: Some(30), .. }));
    assert_eq!(exchange.ask.template, "");
}

#[test]
fn other_grants_are_refused() {
    for grant in
        ["client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer", "refresh_token", "Token-Exchange"]
    {
        assert_eq!(reason(&and(evidence(), "grant_type", grant)), Some(Reason::GrantType), "{grant}");
    }
}

#[test]
fn t_074_a_missing_empty_or_blank_subject_token_is_refused() {
    for form in [
        without(evidence(), "subject_token"),
        and(evidence(), "subject_token", ""),
        and(evidence(), "subject_token", " \t\r\n"),
        without(evidence(), "subject_token_type"),
        and(evidence(), "subject_token_type", ACCESS_TOKEN),
        and(evidence(), "subject_token_type", "jwt"),
        without(evidence(), "grant_type"),
    ] {
        assert_eq!(reason(&form), Some(Reason::Request), "{}", encoded(&form));
    }
}

#[test]
fn t_074_an_empty_parameter_is_malformed_not_absent() {
    for name in KNOWN {
        assert_eq!(reason(&and(evidence(), name, " ")), expected_for(name), "{name}");
        assert_eq!(reason(&and(handle(), name, "")), Some(Reason::Request), "{name}");
    }
}

/// A blank grant is another grant; everything else that is blank is malformed.
fn expected_for(name: &str) -> Option<Reason> {
    Some(if name == "grant_type" { Reason::GrantType } else { Reason::Request })
}

#[test]
fn t_085_an_actor_is_refused_not_ignored() {
    for name in ["actor_token", "actor_token_type"] {
        assert_eq!(reason(&and(evidence(), name, "x")), Some(Reason::Request));
        assert_eq!(reason(&and(evidence(), name, "")), Some(Reason::Request));
    }
}

#[test]
fn unknown_parameters_are_ignored() {
    assert_eq!(reason(&and(evidence(), "client_id", "me")), None);
    assert_eq!(reason(&and(evidence(), "owner", "root")), None);
}

#[test]
fn t_076_the_resource_asked_is_the_resource_handed_on() {
    for form in [
        and(evidence(), "resource", RESOURCE),
        and(evidence(), "audience", RESOURCE),
        and(and(evidence(), "audience", RESOURCE), "resource", RESOURCE),
    ] {
        let What::Credential { resource, .. } = read(&form).unwrap().ask.what else { panic!("a credential") };
        assert_eq!(resource.as_deref(), Some(RESOURCE));
    }
}

#[test]
fn t_076_two_different_audiences_are_refused() {
    let form = and(and(evidence(), "audience", "https://other.example"), "resource", RESOURCE);
    assert_eq!(reason(&form), Some(Reason::Request));
}

#[test]
fn a_dpop_proof_goes_along_and_two_are_refused() {
    let proofs = |texts: &[&str]| -> HeaderMap {
        texts.iter().map(|text| ("dpop".parse().unwrap(), text.parse().unwrap())).collect()
    };
    let parse = |headers| parse(&headers, "/oauth2/token", Fields::parse(encoded(&evidence()).as_bytes()).unwrap());
    let possession = parse(proofs(&["x"])).unwrap().possession.unwrap();
    assert_eq!((possession.proof.expose().as_str(), possession.method), ("x", "POST"));
    assert_eq!(possession.path, "/oauth2/token");
    assert_eq!(parse(proofs(&["x", "x"])).unwrap_err().reason, Reason::Dpop);
}

#[test]
fn a_handle_hash_has_one_spelling() {
    let exchange = read(&and(evidence(), "task_control_s256", HASH)).unwrap();
    let Subject::Evidence { control_s256: Some(hash), .. } = exchange.subject else { panic!("a hash") };
    assert_eq!((hash[0], hash[31]), (0, 31));
    let loose = HASH.replace("Hh8", "Hh9");
    for bad in [&loose, &HASH[..42], &format!("{HASH}="), &format!("{HASH}A"), &HASH.replace('A', "+"), "x"] {
        assert_eq!(reason(&and(evidence(), "task_control_s256", bad)), Some(Reason::Request), "{bad}");
    }
    assert_eq!(reason(&and(handle(), "task_control_s256", HASH)), Some(Reason::Request));
}

#[test]
fn supersede_is_0_to_60_and_goes_with_a_handle() {
    for good in ["0", "1", "60"] {
        assert_eq!(reason(&and(handle(), "supersede", good)), None, "{good}");
    }
    for bad in ["61", "-1", "+1", "00", "07", "1.0", "1s", "256", "1e1", "٣"] {
        assert_eq!(reason(&and(handle(), "supersede", bad)), Some(Reason::Request), "{bad}");
    }
    assert_eq!(reason(&and(evidence(), "supersede", "0")), Some(Reason::Request));
}

#[test]
fn requested_types_of_later_parts_are_refused() {
    assert_eq!(reason(&and(evidence(), "requested_token_type", ACCESS_TOKEN)), None);
    for later in [JWT, "urn:ietf:params:oauth:token-type:refresh_token", "x"] {
        assert_eq!(reason(&and(evidence(), "requested_token_type", later)), Some(Reason::Request), "{later}");
    }
}

#[test]
fn a_task_alone_takes_no_credential_parameters() {
    let alone = and(evidence(), "requested_token_type", TASK_CONTROL);
    assert_eq!(read(&alone).unwrap().ask.what, What::TaskOnly);
    assert_eq!(reason(&and(alone.clone(), "resource", RESOURCE)), Some(Reason::Request));
    assert_eq!(reason(&and(alone.clone(), "audience", RESOURCE)), Some(Reason::Request));
    for rest in [r#","ttl":5"#, r#","actions":["a"]"#] {
        assert_eq!(
            reason(&and(alone.clone(), "authorization_details", &details(rest))),
            Some(Reason::Details),
            "{rest}"
        );
    }
    let ticket = and(alone, "authorization_details", &details(r#","ticket":"OPS-1""#));
    assert_eq!(read(&ticket).unwrap().ask.ticket.as_deref(), Some("OPS-1"));
    assert_eq!(reason(&and(handle(), "requested_token_type", TASK_CONTROL)), Some(Reason::Request));
}

#[test]
fn scope_and_details_agree_or_are_refused() {
    let both = and(evidence(), "authorization_details", &details(r#","ttl":60"#));
    assert_eq!(read(&both).unwrap().ask.ttl_s, Some(60));
    assert_eq!(reason(&and(both.clone(), "scope", "deploy-test")), Some(Reason::Request));
    assert_eq!(reason(&without(both.clone(), "scope")), None);
    assert_eq!(reason(&without(evidence(), "scope")), Some(Reason::Request));
}

#[test]
fn a_ticket_with_a_handle_is_refused() {
    let form = and(handle(), "authorization_details", &details(r#","ticket":"OPS-1""#));
    assert_eq!(reason(&form), Some(Reason::Ticket));
}

#[test]
fn a_refusal_never_repeats_what_was_sent() {
    for name in KNOWN {
        let Err(refused) = read(&and(evidence(), name, "s3cr3t")) else { continue };
        assert!(!format!("{refused:?}").contains("s3cr3t"), "{name}");
    }
}
