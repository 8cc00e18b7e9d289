//! Tokens that are bound to a client certificate (RFC 8705 section 3).

use std::sync::Arc;

use dayfly_verifier::{
    CertificateRefusal, Clock, Confirmation, Offline, ProofOf, Refusal, Refused, TaskClaims, Thumbprint, UnixMs,
};
use serde_json::json;

use crate::{support::*, task::task_claims};

/// Whatever DER a TLS stack hands over: the gate compares its hash and reads nothing in it.
const MINE: &[u8] = b"0\x03\x02\x01\x01";
const THEIRS: &[u8] = b"0\x03\x02\x01\x02";

struct Standing;

impl Clock for Standing {
    fn now(&self) -> UnixMs {
        now()
    }
}

fn offline(cnf: Option<Confirmation>) -> (Offline, String) {
    let issuer = Es256::new();
    let token = issuer.signing.sign("at+jwt", &TaskClaims { cnf, ..task_claims() }).unwrap();
    (Offline::new(issuer.keys(), ISSUER, task_claims().aud).with_clock(Arc::new(Standing)), token)
}

fn bound() -> (Offline, String) {
    offline(Some(Confirmation::X5t(Thumbprint::of_certificate(MINE))))
}

#[test]
fn a_token_is_good_with_its_certificate_and_only_with_it() {
    let (offline, token) = bound();
    assert_eq!(offline.check_certified(&token, Some(MINE)).unwrap().claims().owner, "shop");
    assert_eq!(offline.check_certified(&token, Some(MINE)).map(|_| ()), Ok(()), "as often as it is shown");
}

#[test]
fn a_token_of_another_certificate_is_refused() {
    let (offline, token) = bound();
    let refused = |der| offline.check_certified(&token, der).unwrap_err();
    assert_eq!(refused(Some(THEIRS)), CertificateRefusal::Other.into());
    assert_eq!(refused(Some(b"")), CertificateRefusal::Other.into());
    assert_eq!(refused(None), CertificateRefusal::Missing.into());
    assert_eq!((refused(None).status(), refused(None).reason().code()), (401, "E-CERTIFICATE"));
    assert_eq!(offline.check(&token).unwrap_err(), CertificateRefusal::Missing.into(), "as a bearer");
    let of = ProofOf { proof: "e30.e30.e30", method: "GET", url: "https://db-0.example/" };
    assert_eq!(offline.check_bound(&token, &of).unwrap_err(), CertificateRefusal::Missing.into(), "with a proof");
}

#[test]
fn a_certificate_opens_no_token_that_is_bound_to_none() {
    let (plain, token) = offline(None);
    assert_eq!(plain.check_certified(&token, Some(MINE)).unwrap_err(), CertificateRefusal::Unbound.into());
    let key = Thumbprint::of_certificate(MINE);
    let (dpop, token) = offline(Some(Confirmation::Jkt(key)));
    assert_eq!(dpop.check_certified(&token, Some(MINE)).unwrap_err(), Refusal::Claim("cnf").into());
}

#[test]
fn one_member_of_cnf_and_no_other() {
    let issuer = Es256::new();
    let offline = Offline::new(issuer.keys(), ISSUER, task_claims().aud).with_clock(Arc::new(Standing));
    let print = Thumbprint::of_certificate(MINE).to_string();
    let said = |cnf| {
        let claims = with(serde_json::to_value(task_claims()).unwrap(), json!({ "cnf": cnf }));
        offline.check_certified(&issuer.signing.sign("at+jwt", &claims).unwrap(), Some(MINE)).map(|_| ())
    };
    assert_eq!(said(json!({ "x5t#S256": print })), Ok(()));
    let cut = &print[1..];
    for bad in [
        json!({ "x5t#S256": print, "jkt": print }),
        json!({ "x5t#S256": cut }),
        json!({ "x5t": print }),
        json!("x5t#S256"),
        json!({ "x5t#S256": null }),
        json!({ "x5t#s256": print }),
    ] {
        assert_eq!(said(bad.clone()), Err(Refused::Token(Refusal::Claim("cnf"))), "{bad}");
    }
}
