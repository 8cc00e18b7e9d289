//! Status list tokens, read without asking anybody; and every way to pass one off as something else.

use std::sync::Arc;

use dayfly_verifier::{
    Clock, Offline, Refusal, Refused, Status, StatusRef, TaskClaims, USE_LISTS, USE_MEMBER, UnixMs, read_task_token,
    status::{
        EncodedList, LIST_ENTRIES_MAX, LIST_TOKEN_MAX_BYTES, LIST_TOKEN_TYP, ListClaims, ListRefusal, ListToken,
        StatusBits, StatusList, StatusListError,
    },
};
use serde_json::{Value, json};

use crate::{support::*, task::task_claims};

pub fn uri_of(issuer: &str, name: &str) -> String {
    format!("{issuer}/status/{name}")
}

/// A list of 64 entries of one bit, with these set, from a minute ago for five minutes.
pub fn list_claims(uri: &str, ended: &[u32], now_s: i64) -> ListClaims {
    let mut list = StatusList::new(StatusBits::One, 64);
    assert!(ended.iter().all(|&index| list.set(index, 1)));
    let status_list = EncodedList::of(&list);
    ListClaims { sub: uri.to_owned(), iat: now_s, exp: now_s + 300, ttl: 15, status_list }
}

pub fn listed_claims(base: TaskClaims, uri: &str, idx: u32) -> TaskClaims {
    TaskClaims { status: Some(Status { status_list: StatusRef { idx, uri: uri.to_owned() } }), ..base }
}

struct Fixed(i64);

impl Clock for Fixed {
    fn now(&self) -> UnixMs {
        UnixMs::from_s(self.0)
    }
}

struct Place {
    key: Es256,
    uri: String,
}

impl Place {
    fn new() -> Self {
        Self { key: Es256::new(), uri: uri_of(ISSUER, "a") }
    }

    fn sign(&self, claims: &impl serde::Serialize) -> String {
        self.key.signing.sign(LIST_TOKEN_TYP, claims).unwrap()
    }

    fn read(&self, token: &str) -> Result<ListToken, ListRefusal> {
        ListToken::read(token, &self.key.keys(), ISSUER, LIST_ENTRIES_MAX, now())
    }

    /// A good list with these claims changed; `null` takes one away.
    fn changed(&self, changes: Value) -> Result<ListToken, ListRefusal> {
        let claims = serde_json::to_value(list_claims(&self.uri, &[3], NOW_S)).unwrap();
        self.read(&self.sign(&with(claims, changes)))
    }

    fn token(&self, idx: u32) -> String {
        self.key.signing.sign("at+jwt", &listed_claims(task_claims(), &self.uri, idx)).unwrap()
    }

    fn offline(&self, at_s: i64) -> Offline {
        Offline::new(self.key.keys(), ISSUER, task_claims().aud).with_clock(Arc::new(Fixed(at_s)))
    }
}

/// Whoever has a list's key writes what he likes, and still opens no door.
#[test]
fn a_list_key_signs_no_token() {
    let place = Place::new();
    let of_lists = set(&[place.key.jwk_with(json!({ USE_MEMBER: USE_LISTS }))]);
    let forged = place.key.signing.sign("at+jwt", &task_claims()).unwrap();
    let read = |keys| read_task_token(&forged, keys, ISSUER, &task_claims().aud, now()).map(drop);
    assert_eq!(read(&of_lists), Err(Refusal::UnknownKey));
    assert_eq!(read(&place.key.keys()), Ok(()), "the same key, if it were for tokens");
    let list = place.sign(&list_claims(&place.uri, &[3], NOW_S));
    assert!(ListToken::read(&list, &of_lists, ISSUER, LIST_ENTRIES_MAX, now()).is_ok());
}

#[test]
fn a_good_list_says_who_has_ended() {
    let place = Place::new();
    let list = place.read(&place.sign(&list_claims(&place.uri, &[3], NOW_S))).unwrap();
    assert_eq!((list.uri(), list.issued_at_s(), list.expires_at_s()), (&*place.uri, NOW_S, NOW_S + 300));
    assert_eq!((list.ttl_s(), list.list().len()), (15, 64));
    let offline = place.offline(NOW_S);
    let lists = [list];
    assert_eq!(offline.check_listed(&place.token(2), &lists).unwrap().claims().txn, task_claims().txn);
    assert_eq!(offline.check_listed(&place.token(3), &lists).unwrap_err(), Refused::Inactive);
    assert!(offline.check(&place.token(3)).is_ok(), "who does not look does not see");
}

#[test]
fn every_value_but_zero_is_an_end() {
    let place = Place::new();
    let mut list = StatusList::new(StatusBits::Two, 4);
    for value in 0..4 {
        assert!(list.set(value.into(), value));
    }
    let claims = ListClaims { status_list: EncodedList::of(&list), ..list_claims(&place.uri, &[], NOW_S) };
    let lists = [place.read(&place.sign(&claims)).unwrap()];
    let outcome = |idx| place.offline(NOW_S).check_listed(&place.token(idx), &lists).map(drop);
    assert_eq!(outcome(0), Ok(()));
    for idx in 1..4 {
        assert_eq!(outcome(idx), Err(Refused::Inactive));
    }
}

#[test]
fn a_task_token_is_no_list_and_a_list_no_task_token() {
    let place = Place::new();
    let claims = task_claims();
    // All claims of both, so that nothing but `typ` can tell.
    let both = |token: &TaskClaims| {
        let list = serde_json::to_value(list_claims(&place.uri, &[], NOW_S)).unwrap();
        with(serde_json::to_value(token).unwrap(), with(list, json!({"sub": place.uri})))
    };
    let both = both(&claims);
    let read = |token: &str| {
        let task = read_task_token(token, &place.key.keys(), ISSUER, &claims.aud, now());
        (task.map(drop), place.read(token).map(drop))
    };
    let (list, task) = (place.sign(&both), place.key.signing.sign("at+jwt", &both).unwrap());
    assert_eq!(read(&list), (Err(Refusal::Type), Ok(())));
    assert_eq!(read(&task), (Ok(()), Err(ListRefusal::Token(Refusal::Type))));
    for typ in ["JWT", "", "statuslist+cwt", "application/statuslist+jwt", "StatusList+jwt", "statuslist+jwt "] {
        let refused = read(&place.key.signing.sign(typ, &both).unwrap());
        assert_eq!(refused, (Err(Refusal::Type), Err(ListRefusal::Token(Refusal::Type))), "{typ:?}");
    }
}

#[test]
fn a_list_is_signed_by_the_broker_or_refused() {
    let (place, other) = (Place::new(), Es256::new());
    let claims = list_claims(&place.uri, &[], NOW_S);
    let foreign = other.signing.sign(LIST_TOKEN_TYP, &claims).unwrap();
    assert_eq!(place.read(&foreign).unwrap_err(), ListRefusal::Token(Refusal::UnknownKey));
    let claimed = json!({"alg": "ES256", "typ": LIST_TOKEN_TYP, "kid": place.key.signing.kid()}).to_string();
    let forged = other.token(claimed, serde_json::to_vec(&claims).unwrap());
    assert_eq!(place.read(&forged).unwrap_err(), ListRefusal::Token(Refusal::Signature));
    let good = place.sign(&claims);
    let (message, _) = good.rsplit_once('.').unwrap();
    for (token, refusal) in [
        (format!("{message}."), Refusal::Malformed),
        (message.to_owned(), Refusal::Malformed),
        (format!("{good}.x"), Refusal::Malformed),
        ("x".repeat(LIST_TOKEN_MAX_BYTES + 1), Refusal::Malformed),
    ] {
        assert_eq!(place.read(&token).unwrap_err(), ListRefusal::Token(refusal));
    }
    for alg in ["none", "HS256", "RS256", "ES384"] {
        let header = json!({"alg": alg, "typ": LIST_TOKEN_TYP, "kid": place.key.signing.kid()}).to_string();
        let refused = place.read(&place.key.token(header, serde_json::to_vec(&claims).unwrap())).unwrap_err();
        assert_eq!(refused, ListRefusal::Token(Refusal::Algorithm), "{alg}");
    }
}

#[test]
fn every_claim_of_a_list_is_required_and_typed() {
    let place = Place::new();
    let claim = |name| ListRefusal::Token(Refusal::Claim(name));
    for name in ["iat", "exp", "ttl", "status_list"] {
        for bad in [json!(null), json!("1"), json!(-1), json!(1.5), json!([]), json!(true)] {
            assert_eq!(place.changed(json!({ name: bad })).unwrap_err(), claim(name), "{name} {bad}");
        }
    }
    for bad in [json!(null), json!(1), json!(""), json!(" ")] {
        let refused = place.changed(json!({ "sub": bad })).unwrap_err();
        assert!([claim("sub"), claim("claims"), ListRefusal::Subject].contains(&refused), "{bad}: {refused}");
    }
    assert_eq!(place.changed(json!({"ttl": 0})).unwrap_err(), claim("ttl"));
    assert_eq!(place.changed(json!({"ttl": u64::MAX})).unwrap().ttl_s(), u32::MAX);
    for bad in
        [json!({}), json!({"bits": 1}), json!({"bits": 3, "lst": "eNrbuRgAAhcBXQ"}), json!({"bits": 1, "lst": 1})]
    {
        assert_eq!(place.changed(json!({ "status_list": bad })).unwrap_err(), claim("status_list"), "{bad}");
    }
    let other = json!({"status_list": {"bits": 1, "lst": "eNrbuRgAAhcBXQ", "aggregation_uri": "x"}, "x": 1});
    assert!(place.changed(other).is_ok(), "what is not known is read over");
    let garbage = place.changed(json!({"status_list": {"bits": 1, "lst": "AAAA"}})).unwrap_err();
    assert_eq!(garbage, ListRefusal::List(StatusListError::Malformed));
}

#[test]
fn a_list_has_its_times() {
    let place = Place::new();
    let expired = [json!({"exp": NOW_S}), json!({"exp": NOW_S - 1}), json!({"exp": 0})];
    for times in expired {
        assert_eq!(place.changed(times.clone()).unwrap_err(), ListRefusal::Expired, "{times}");
    }
    assert!(place.changed(json!({"exp": NOW_S + 1})).is_ok(), "to its last second");
    assert!(place.changed(json!({"exp": NOW_S + 24 * 3600 + 30})).is_ok(), "this clock may be behind");
    let far = place.changed(json!({"exp": NOW_S + 24 * 3600 + 31})).unwrap_err();
    assert_eq!(far, ListRefusal::Token(Refusal::Claim("exp")));
    assert!(place.changed(json!({"iat": NOW_S + 30})).is_ok());
    for early in [json!({"iat": NOW_S + 31}), json!({"nbf": NOW_S + 31})] {
        assert_eq!(place.changed(early).unwrap_err(), ListRefusal::Token(Refusal::NotYetValid));
    }
}

#[test]
fn a_list_of_another_place_is_refused() {
    let place = Place::new();
    let foreign = place.changed(json!({"iss": "https://evil.example"})).unwrap_err();
    assert_eq!(foreign, ListRefusal::Token(Refusal::Issuer));
    assert!(place.changed(json!({ "iss": ISSUER })).is_ok());
    let long = uri_of(ISSUER, &"a".repeat(65));
    let bad = [
        "https://evil.example/status/a",
        "https://idp.example.evil.example/status/a",
        "https://idp.example@evil.example/status/a",
        "http://idp.example/status/a",
        "https://idp.example/status",
        "https://idp.example/status/",
        "https://idp.example//status/a",
        "https://idp.example/status/a/b",
        "https://idp.example/status/../oauth2/jwks",
        "https://idp.example/status/..",
        "https://idp.example/status/%2e%2e",
        "https://idp.example/status/a?b",
        "https://idp.example/status/a#b",
        "https://idp.example/status/a b",
        "https://idp.example/status/a\\b",
        "https://IDP.example/status/a",
        "/status/a",
        &long,
    ];
    for uri in bad {
        assert_eq!(place.changed(json!({ "sub": uri })).unwrap_err(), ListRefusal::Subject, "{uri}");
        let token = place.key.signing.sign("at+jwt", &listed_claims(task_claims(), uri, 0)).unwrap();
        let refused = place.offline(NOW_S).check_listed(&token, &[]).unwrap_err();
        assert_eq!(refused, Refused::Token(Refusal::Claim("status")), "{uri}");
    }
}

#[test]
fn a_token_without_status_is_refused_by_list() {
    let place = Place::new();
    let lists = [place.read(&place.sign(&list_claims(&place.uri, &[], NOW_S))).unwrap()];
    let token = place.key.signing.sign("at+jwt", &task_claims()).unwrap();
    let refused = place.offline(NOW_S).check_listed(&token, &lists).unwrap_err();
    assert_eq!((refused, refused.status()), (Refused::Token(Refusal::Claim("status")), 401));
}

#[test]
fn an_index_past_the_end_is_refused() {
    let place = Place::new();
    let lists = [place.read(&place.sign(&list_claims(&place.uri, &[], NOW_S))).unwrap()];
    let outcome = |idx| place.offline(NOW_S).check_listed(&place.token(idx), &lists).map(drop);
    assert_eq!(outcome(63), Ok(()));
    for idx in [64, 65, u32::MAX] {
        assert_eq!(outcome(idx), Err(Refused::Token(Refusal::Claim("status"))), "{idx}");
    }
}

#[test]
fn an_expired_list_says_nothing() {
    let place = Place::new();
    let claims = ListClaims { exp: NOW_S + 10, ..list_claims(&place.uri, &[3], NOW_S) };
    let lists = [place.read(&place.sign(&claims)).unwrap()];
    let outcome = |at_s, idx| place.offline(at_s).check_listed(&place.token(idx), &lists).map(drop);
    assert_eq!((outcome(NOW_S + 9, 0), outcome(NOW_S + 9, 3)), (Ok(()), Err(Refused::Inactive)));
    for idx in [0, 3] {
        let refused = outcome(NOW_S + 10, idx).unwrap_err();
        assert_eq!((refused, refused.status()), (Refused::List(ListRefusal::Expired), 503), "neither good nor ended");
        assert_eq!(refused.challenge(), None, "the caller's token is not at fault");
    }
}

#[test]
fn another_list_says_nothing_of_a_token() {
    let place = Place::new();
    let other = list_claims(&uri_of(ISSUER, "b"), &[], NOW_S);
    let lists = [place.read(&place.sign(&other)).unwrap()];
    let refused = place.offline(NOW_S).check_listed(&place.token(0), &lists).unwrap_err();
    assert_eq!(refused, Refused::List(ListRefusal::Missing));
    let entry = StatusRef { idx: 0, uri: place.uri.clone() };
    assert_eq!(lists[0].check(&entry, now()), Err(Refused::List(ListRefusal::Missing)));
}

#[test]
fn a_list_larger_than_was_said_is_refused() {
    let place = Place::new();
    let mut claims = list_claims(&place.uri, &[], NOW_S);
    claims.status_list = EncodedList::of(&StatusList::new(StatusBits::One, 4096));
    let token = place.sign(&claims);
    let read = |entries_max| ListToken::read(&token, &place.key.keys(), ISSUER, entries_max, now()).map(drop);
    assert_eq!((read(4096), read(4095)), (Ok(()), Ok(())), "counted in whole bytes");
    assert_eq!(read(4088), Err(ListRefusal::List(StatusListError::TooLarge)));
}

/// The largest list there is, as full of noise as it can be, still fits.
#[test]
fn the_largest_list_fits() {
    let place = Place::new();
    let mut state = 1_u64;
    let noise = (0..LIST_ENTRIES_MAX / 8).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    let list = StatusList::from_bytes(StatusBits::One, noise.collect());
    let claims = ListClaims { status_list: EncodedList::of(&list), ..list_claims(&place.uri, &[], NOW_S) };
    let token = place.sign(&claims);
    assert!(token.len() > 28_000, "{}", token.len());
    assert_eq!(place.read(&token).unwrap().list(), &list);
}

#[test]
fn nothing_of_a_list_is_in_a_debug_text() {
    let place = Place::new();
    let claims = list_claims(&place.uri, &[3], NOW_S);
    let lst = claims.status_list.lst.clone();
    let list = place.read(&place.sign(&claims)).unwrap();
    assert!(!format!("{claims:?} {list:?} {:?}", list.list()).contains(&lst));
}
